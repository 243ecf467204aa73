"""NeoCoder: reading its files, running its solutions, labelling them."""

import functools
import hashlib
import http.server
import threading
from dataclasses import replace
from pathlib import Path

import neocoder_files
import pytest
import torch
from reference import tiny_llama, tiny_tokenizer

from iti_llama.toolkit.neocoder import (
    FILES,
    build_from_humans,
    build_from_samples,
    extract_code,
    fetch,
    load,
    parse_samples,
    python_solutions,
    run_samples,
    runnable,
)
from iti_llama.toolkit.samples import draw, prompt_for, read_rows
from iti_llama.toolkit.sandbox import Limits, Sandbox, SandboxError


REAL = Path(__file__).parents[2] / "shared" / "data" / "neocoder"
real = pytest.mark.skipif(not REAL.is_dir(), reason=f"NeoCoder's own files are not in {REAL.parent.name}/{REAL.name}")


@pytest.fixture(scope="module")
def sandbox():
    try:
        return Sandbox(Limits(seconds=6, memory=768 << 20))
    except SandboxError as error:
        pytest.skip(f"no sandbox on this machine: {error}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return neocoder_files.write(tmp_path_factory.mktemp("neocoder"))


@pytest.fixture(scope="module")
def problems(folder):
    return load(folder)


def by_title(problem):
    return f"# {problem.title}\n"


def test_states_that_repeat_are_left_out_and_the_first_has_no_constraints(problems):
    assert [len(problem.statements) for problem in problems] == [2, 2]
    assert problems[0].constraints == (frozenset(), frozenset({"for loop"}))
    assert "- \n" not in problems[0].statements[1]


def test_samples_come_from_the_statement():
    raw = "Text\nExamples\nInput\n1 2\n3\nOutput\nYES\nInput\n4\nOutput\nNO\nno\nNote\nInput\nx\nOutput\ny"
    assert parse_samples(raw) == (("1 2\n3\n", "YES"), ("4\n", "NO\nno"))


def test_solutions_are_run_and_compared_by_tokens(problems, sandbox):
    double = problems[0]
    programs = [*double.humans, "print(2)\nprint(4)", "for _ in range(int(input())): print(2 * int(input()), end=' ')"]
    outcomes = run_samples(programs, [double.samples] * len(programs), sandbox)
    passed = [outcome.passed for outcome in outcomes]
    assert passed == [True] * 9 + [False, False, True] + [False, True]


def test_a_solve_that_is_never_called_is_called():
    assert runnable("def solve():\n    print(1)\n").endswith("solve()\n")
    for text in ("def solve():\n    print(1)\nsolve()\n", "def solve(n):\n    print(n)\n", "print(", "print(1)\n"):
        assert runnable(text) == text


@pytest.mark.parametrize(
    "answer,code",
    [
        ("Sure:\n```python\nprint(1)\n```\nand\n```python\nprint(2)\n```", "print(1)\n"),
        ("```\nprint(1)\n```", "print(1)\n"),
        ("```Python\nprint(1)", "print(1)\n"),
        ("The program:\nimport sys\nprint(1)", "import sys\nprint(1)\n"),
        ("print(1)", "print(1)\n"),
    ],
)
def test_the_program_is_taken_out_of_an_answer(answer, code):
    assert extract_code(answer) == code


def test_novel_and_ordinary_solutions_are_paired_within_problems(problems, sandbox):
    built = build_from_humans(problems, sandbox, by_title)
    assert dict(built.counts)["human solutions"] == 22
    assert dict(built.counts)["in Python 3, without duplicates"] == 20
    assert dict(built.counts)["of them, pass the samples"] == 18
    labels = {(e.group, e.completion.strip()): e.label for e in built.examples}
    assert all(text in neocoder_files.DOUBLE["rare"] for (g, text), label in labels.items() if g == "1A" and label)
    assert all(
        text in neocoder_files.DOUBLE["common"] for (g, text), label in labels.items() if g == "1A" and not label
    )
    for group in {e.group for e in built.examples}:
        own = [e for e in built.examples if e.group == group]
        assert sum(e.label for e in own) * 2 == len(own) > 0
        for zero, one in zip(own[::2], own[1::2], strict=True):
            assert (
                max(len(zero.completion), len(one.completion))
                <= 1.25 * min(len(zero.completion), len(one.completion)) + 1
            )
    # fewer are rare when no other may use the technique, more when three may
    sizes = [len(build_from_humans(problems, sandbox, by_title, rare=rare).examples) for rare in (0, 1)]
    assert sizes[0] <= sizes[1]


def test_machine_solutions_are_labelled_by_their_share_of_new_techniques(problems, sandbox):
    plain = neocoder_files.DOUBLE["common"][0]
    new = "from heapq import heappush\nfor _ in range(int(input())):\n    h = []\n    heappush(h, 2 * int(input()))\n    print(h[0])"
    samples = [
        {"problem_id": "1A", "prompt": "p", "completion": f"```python\n{plain}\n```"},
        {"problem_id": "1A", "prompt": "p", "completion": f"```python\n{plain}\n```"},  # a duplicate
        {"problem_id": "1A", "prompt": "p", "completion": new},
        {"problem_id": "1A", "prompt": "p", "completion": "print(1)"},  # wrong
        {"problem_id": "2B", "prompt": "p", "completion": neocoder_files.PARITY["rare"][1]},
    ]
    built = build_from_samples(problems, samples, sandbox)
    assert [(e.group, e.label) for e in built.examples] == [("1A", 0), ("1A", 1), ("2B", 0)]
    assert built.examples[1].meta["new_ratio"] == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="row 1: problem_id is 'x'"):
        build_from_samples(problems, [{"problem_id": "x", "completion": ""}], sandbox)


def test_missing_and_foreign_files_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no NeoCoder\.json"):
        load(tmp_path)
    for name in FILES:
        (tmp_path / name).write_text("[{}]")
    with pytest.raises(ValueError, match="not NeoCoder's files"):
        load(tmp_path)


def test_files_are_downloaded_once_and_checked(folder, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        with pytest.raises(ValueError, match=r"NeoCoder\.json: SHA-256 is [0-9a-f]{64}; expected 00"):
            fetch(url, tmp_path, {"NeoCoder.json": "00"})
        assert not (tmp_path / "NeoCoder.json").exists()
        sums = fetch(url, tmp_path)
        server.shutdown()
    assert sums == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    assert fetch("http://127.0.0.1:9", tmp_path, sums) == sums  # from the folder, with nobody there to ask
    assert len(load(tmp_path)) == 2


def test_sampling_goes_on_where_it_stopped_and_gives_the_same(problems, tmp_path):
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    short = [replace(problem, statements=(f"double {i}",)) for i, problem in enumerate(problems)]
    kwargs = {"n": 5, "max_new_tokens": 8, "batch_size": 2}
    draw(model, tokenizer, short, tmp_path / "whole.jsonl", **kwargs)
    whole = read_rows(tmp_path / "whole.jsonl")
    assert [row["problem_id"] for row in whole] == ["1A"] * 5 + ["2B"] * 5
    assert len({row["completion"] for row in whole}) > 5
    lines = (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "killed.jsonl").write_bytes(lines[: len(lines) // 2])  # in the middle of a row
    torch.manual_seed(99)
    draw(model, tokenizer, short, tmp_path / "killed.jsonl", **kwargs)
    assert read_rows(tmp_path / "killed.jsonl") == whole
    for other, changed in ((tiny_llama(seed=1), {}), (model, {"temperature": 0.5})):
        with pytest.raises(ValueError, match="holds samples drawn with"):
            draw(other, tokenizer, short, tmp_path / "whole.jsonl", **(kwargs | changed))
    assert (tmp_path / "whole.jsonl").read_bytes() == lines


def test_prompts_go_through_the_chat_template_where_there_is_one():
    tokenizer = tiny_tokenizer()
    assert prompt_for("Add.", tokenizer) == '"""Add.\n"""\n'
    tokenizer.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %} [assistant]"
    )
    text = prompt_for("Add.", tokenizer)
    assert text.startswith("<bos>[user] Solve") and text.endswith("Add. [assistant]")


@real
def test_the_real_files_are_read_whole():
    problems = load(REAL)
    assert len(problems) == 160
    assert all(problem.samples for problem in problems)
    assert all(len(problem.humans) == len(problem.human_labels) for problem in problems)


@real
def test_accepted_solutions_of_problems_with_one_answer_pass(sandbox):
    for problem in (problem for problem in load(REAL) if problem.id in ("1901A", "1899A")):
        programs = python_solutions(problem)
        outcomes = run_samples(programs, [problem.samples] * len(programs), sandbox)
        assert sum(outcome.passed for outcome in outcomes) >= 0.9 * len(outcomes) > 5
