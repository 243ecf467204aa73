"""Measuring: against independent computations, resumable, and honest about nothing."""

import json
import math
import random
import sys
import textwrap
from dataclasses import replace
from itertools import combinations

import neocoder_files
import numpy as np
import pytest
import torch
from reference import hooks, some_directions, tiny_llama, tiny_tokenizer

from iti_llama import ITILlamaForCausalLM
from iti_llama.toolkit import evaluate as module
from iti_llama.toolkit.bundled import ROOT
from iti_llama.toolkit.corpus import sample_tasks
from iti_llama.toolkit.damage import Text, degenerate, measure_damage
from iti_llama.toolkit.evaluate import Answers, Condition, answer, evaluate, markdown, standard_conditions
from iti_llama.toolkit.grading import Grade
from iti_llama.toolkit.intervals import estimate
from iti_llama.toolkit.multiple_choice import Question, answer_scores, multiple_choice, read_questions
from iti_llama.toolkit.neocoder import load
from iti_llama.toolkit.store import Store
from iti_llama.toolkit.sweep import Point, Rates, alpha_of_kl, apply, beats_control, choose, control
from iti_llama.toolkit.tasksets import (
    calibrated,
    corpus_set,
    file_set,
    human_convergent,
    human_divergent,
    neocoder_set,
    strengthened,
)


@pytest.fixture(scope="module")
def plain():
    return tiny_llama()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(params=["all", "generated"])
def tiny(request, plain, tmp_path):
    plain.save_pretrained(tmp_path / "base")
    directions = some_directions(plain.config)
    return ITILlamaForCausalLM.from_base(tmp_path / "base", directions, alpha=0.7, scope=request.param).eval()


@pytest.fixture(scope="module")
def bundled():
    from transformers import AutoTokenizer

    return ITILlamaForCausalLM.from_pretrained(ROOT).eval(), AutoTokenizer.from_pretrained(ROOT)


# Damage ----------------------------------------------------------------------------------------------------------------


def logs(model, ids):
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0].double().log_softmax(-1)


def test_kl_and_perplexity_are_those_of_two_plain_passes(tiny, plain, tokenizer):
    texts = [
        Text("def f(x):\n", "return x\n", "a"),
        Text("def gg(y):\n", "y += 1\nreturn y\n", "b"),
        Text("", "z = 1\n", "c"),
    ]
    found = measure_damage(tiny, tokenizer, texts, [0.7, -0.7], batch_size=6)
    for damage, alpha in zip(found, (0.7, -0.7), strict=True):
        kls, before, after = [], [], []
        for text in texts:
            prompt = tokenizer(text.prompt)["input_ids"]
            ids = prompt + tokenizer(text.completion, add_special_tokens=False)["input_ids"]
            span = slice(len(prompt) - 1, len(ids) - 1)
            p = logs(plain, ids)[span]
            first = 0 if tiny.iti_scope == "all" else len(prompt) - 1
            with hooks(plain, tiny.iti_directions, alpha, slice(first, None)):
                q = logs(plain, ids)[span]
            kls.append((p.exp() * (p - q)).sum(-1).numpy())
            target = torch.tensor(ids[len(prompt) :])[:, None]
            before.append(-p.gather(-1, target)[:, 0].numpy())
            after.append(-q.gather(-1, target)[:, 0].numpy())
        assert damage.kl.mean == pytest.approx(np.mean([kl.mean() for kl in kls]), rel=1e-3)
        assert damage.kl_95 == pytest.approx(np.quantile(np.concatenate(kls), 0.95), rel=1e-3)
        assert damage.perplexity_plain == pytest.approx(np.exp(np.concatenate(before).mean()), rel=1e-4)
        assert damage.perplexity_steered == pytest.approx(np.exp(np.concatenate(after).mean()), rel=1e-4)
        assert damage.tokens == sum(map(len, before))


def test_the_alpha_of_a_kl_budget_is_at_the_budget(tiny, tokenizer):
    texts = [Text("def f(x):\n", "return x\n", "a"), Text("def gg(y):\n", "y += 1\nreturn y\n", "b")]
    alpha, kl = alpha_of_kl(tiny, tokenizer, texts, 0.05)
    assert 0.9 * 0.05 < kl <= 0.05
    (above,) = measure_damage(tiny, tokenizer, texts, [1.05 * alpha])
    assert above.kl.mean > 0.05
    for budget in (0, 1e-30, 1e9):
        with pytest.raises(ValueError, match="KL budget is"):
            alpha_of_kl(tiny, tokenizer, texts, budget)


@pytest.mark.parametrize(
    "text,why",
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("return x " * 3, ""),
        ("a b c " * 4, "loop"),
        ("start here " + "one two three four " * 5 + "end", "loop"),
        ("x = 1\n" * 12, "loop"),
        ("\n".join(f"x{i} = {i}" for i in range(30)), ""),
        ("for x in xs:\n    total += x\nreturn total", ""),
    ],
)
def test_degenerate_outputs_are_told_apart(text, why):
    assert degenerate(text) == why


# Answers and conditions --------------------------------------------------------------------------------------------------


def test_pass_at_k_is_the_mean_over_all_choices_of_k_samples():
    rng = random.Random(0)
    flags = [rng.random() < 0.4 for _ in range(12)]
    answers = Answers("x", 6, [""] * 12, [Grade(flag, "plain", False) for flag in flags])
    for k in (1, 2, 5):
        for task, value in enumerate(answers.pass_at(k)):
            own = flags[6 * task : 6 * task + 6]
            expected = np.mean([any(choice) for choice in combinations(own, k)])
            assert value == pytest.approx(expected)
    assert math.isclose(answers.pass_at(1)[0], sum(flags[:6]) / 6)


def test_a_killed_evaluation_goes_on_and_gives_the_same(bundled, sandbox, tmp_path, monkeypatch):
    model, tokenizer = bundled
    tasks, condition = corpus_set("validation", 6, seed=3), Condition("steered", model.iti_alpha)
    settings = {"seed": 1}
    kwargs = {"samples": 2, "temperature": 1.0, "batch_size": 4, "seed": 1}
    whole = answer(model, tokenizer, tasks, condition, sandbox, store=Store(tmp_path / "a.jsonl", settings), **kwargs)

    complete, calls = module.complete, []

    def killed(*args, **kw):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(1)
        return complete(*args, **kw)

    monkeypatch.setattr(module, "complete", killed)
    with pytest.raises(KeyboardInterrupt):
        answer(model, tokenizer, tasks, condition, sandbox, store=Store(tmp_path / "b.jsonl", settings), **kwargs)
    with (tmp_path / "b.jsonl").open("a") as file:
        file.write('{"condition": "steered", "ind')  # cut off in the middle of a row
    monkeypatch.setattr(module, "complete", lambda *args, **kw: calls.append(1) or complete(*args, **kw))
    torch.manual_seed(12345)
    again = answer(model, tokenizer, tasks, condition, sandbox, store=Store(tmp_path / "b.jsonl", settings), **kwargs)
    assert again.completions == whole.completions and len(calls) == 3
    with pytest.raises(ValueError, match="another run"):
        Store(tmp_path / "b.jsonl", {"seed": 2})
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == 13


def test_the_conditions_hold_a_control_and_leave_the_model_as_it_was(bundled, sandbox):
    model, tokenizer = bundled
    conditions = standard_conditions(model, draws=1)
    assert [c.name for c in conditions] == [
        "plain", "steered", "minus alpha", "random 1", "asked in words", "asked in words, minus alpha",
    ]  # fmt: skip
    before = model.iti_directions
    rows, answers = evaluate(model, tokenizer, corpus_set("test", 6, seed=1), conditions, sandbox)
    assert model.iti_directions is before
    table = markdown(rows, "idiomatic")
    assert all(name in answers and f"| {name} |" in table for name in (c.name for c in conditions))
    assert rows[0].correct_change.mean == 0
    row = next(row for row in rows if row.condition == "steered")
    assert len(row.lost) - len(row.gained) == round(6 * (rows[0].correct.mean - row.correct.mean))


# Sweep -----------------------------------------------------------------------------------------------------------------


def rates(correct, target):
    n = 100
    both = max(0, correct + target - 1)
    return Rates(*(estimate([i < round(n * share) for i in range(n)], range(n)) for share in (correct, target, both)))


def point(alpha, correct, target, against=1.0, against_correct=1.0, kl=0.0):
    return Point(8, alpha, "all", rates(correct, target), rates(1, 0), rates(against_correct, against), kl, kl)


def test_the_rule_takes_the_middle_of_a_plateau_inside_the_guard():
    line = [point(0, 1, 0), point(1, 1, 0.5), point(2, 1, 1), point(3, 1, 1), point(4, 1, 1), point(5, 0.9, 1)]
    assert choose(line).alpha == 3
    assert choose(line, guard=0.2).alpha in (3, 4)
    assert choose([point(0, 1, 0), point(1, 0.9, 1)]) is None
    assert choose([point(0, 1, 0.5), point(1, 1, 0.2)]) is None
    assert choose([point(0, 1, 0), point(1, 1, 0.8, kl=0.3)], kl_guard=0.1) is None
    both_ways = [point(0, 1, 0), point(1, 1, 0.9), point(2, 1, 0.9, against=0.2)]
    assert choose(both_ways).alpha == 2


def test_a_point_that_random_directions_reach_is_not_chosen():
    good = point(1, 1, 0.9)
    assert beats_control(good, [1], [[rates(1, 0.1), rates(1, 0.0)]])
    assert not beats_control(good, [1], [[rates(1, 0.1), rates(1, 0.0)], [rates(1, 0.9), rates(1, 0.0)]])


def test_the_control_is_measured_at_both_signs(bundled, sandbox):
    model, tokenizer = bundled
    found = control(model, tokenizer, corpus_set("validation", 4, 0), 5, "generated", [0.5, 1.0], sandbox, draws=2)
    assert [len(draw) for draw in found] == [4, 4]
    assert (model.iti_top_k, model.iti_scope) == (None, "all")


def test_a_choice_is_written_into_the_config(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"iti_alpha": 1.0, "iti_scope": "all", "other": 5}))
    chosen = Point(4, 0.8, "generated", *[rates(1, 1)] * 3, 0.0, 0.0)
    apply(tmp_path, chosen, heads=8)
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields == {"iti_alpha": 0.8, "iti_scope": "generated", "iti_top_k": 4, "other": 5}
    apply(tmp_path, chosen, heads=4)
    assert json.loads((tmp_path / "config.json").read_text())["iti_top_k"] is None


# Task sets ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    return load(neocoder_files.write(tmp_path_factory.mktemp("neocoder")))


def test_neogauge_is_the_papers_product(problems, tokenizer, sandbox):
    tasks = neocoder_set(problems, 1, tokenizer)
    assert [task.constraints for task in tasks.tasks] == [frozenset({"for loop"})] * 2
    double = tasks.tasks[0]
    answers = {
        "n = int(input())\nwhile n:\n    print(2 * int(input()))\n    n -= 1": (1, 1, 0, 0),
        "for _ in range(int(input())):\n    print(2 * int(input()))": (1, 0, 0, 0),
        "n = int(input())\nq = {0: 2}\nwhile n:\n    print(q[0] * int(input()))\n    n -= 1": (1, 1, 1 / 2, 1 / 2),
        "print(1)": (0, 0, 0, 0),
        "print(": (0, 0, 0, 0),
    }
    grades = tasks.grade([double] * len(answers), list(answers), sandbox)
    for grade, (text, (correct, convergent, divergent, neogauge)) in zip(grades, answers.items(), strict=True):
        found = (grade.correct, grade.measures["convergent"], grade.measures["divergent"], grade.measures["neogauge"])
        assert found == (correct, convergent, divergent, neogauge), text


def test_human_rows_come_from_the_files_own_labels(problems):
    rows = human_convergent(problems)
    assert [(row.state, row.convergent.mean) for row in rows] == [(0, 1.0), (1, 0.0)]  # every label is 'for loop'
    assert human_divergent(problems).mean == 0.0


def test_problems_that_samples_cannot_judge_are_left_out(problems, sandbox):
    several_answers = replace(problems[0], samples=(("1\n5\n", "anything"),))
    assert [problem.id for problem in calibrated([several_answers, problems[1]], sandbox)] == ["2B"]


def test_tests_are_added_where_human_solutions_agree(problems, sandbox):
    kept = [replace(problem, humans=problem.humans[:7]) for problem in problems]
    stronger = strengthened(kept, sandbox, judges=4, mutants=6)
    for before, after in zip(kept, stronger, strict=True):
        assert after.samples[: len(before.samples)] == before.samples
        assert len(after.samples) > len(before.samples)
    for stdin, stdout in stronger[0].samples:
        numbers = stdin.split()[1:]
        assert [int(x) for x in stdout.split()] == [2 * int(x) for x in numbers][: len(stdout.split())]


def test_tasks_of_a_file_are_run_by_call_or_as_programs(tmp_path, sandbox):
    path = tmp_path / "tasks.jsonl"
    rows = [
        {"prompt": "def f(x):\n    ", "tests": [{"call": "f(2)", "value": 4}, {"call": "f(3)", "value": 6}]},
        {"prompt": "Print the double.\n", "tests": [{"input": "4\n", "output": "8"}], "group": "g"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = file_set(path)
    assert [task.group for task in tasks.tasks] == ["1", "g"]
    right = tasks.grade(tasks.tasks, ["return 2 * x\n", "```python\nprint(2 * int(input()))\n```"], sandbox)
    wrong = tasks.grade(tasks.tasks, ["return x + 2\n", "print(4)"], sandbox)
    fooled = tasks.grade(
        tasks.tasks, ["return x\n\nprint = lambda *a, **k: None\n", "import os; os._exit(0)"], sandbox
    )
    assert [g.correct for g in right] == [True, True]
    assert not any(g.correct for g in wrong + fooled)


@pytest.mark.parametrize(
    "row,said",
    [
        ({"tests": []}, "prompt is None"),
        ({"prompt": "p"}, "tests is None"),
        ({"prompt": "p", "tests": [{"call": "f()"}]}, "a test is"),
        ({"prompt": "p", "tests": [{"call": "f()", "value": 1}, {"input": "", "output": ""}]}, "mix call and input"),
    ],
)
def test_bad_tasks_are_named(tmp_path, row, said):
    path = tmp_path / "tasks.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match="line 1") as error:
        file_set(path)
    assert said in str(error.value)


# Multiple choice ---------------------------------------------------------------------------------------------------------


CSV = """Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source
A,B,What is up?,The sky,The sky.; Not down,The ground; The sea.,x
A,B,"Is it, so?",Yes.,Yes; Of course,No,x
"""


@pytest.fixture
def questions(tmp_path):
    (tmp_path / "t.csv").write_text(CSV)
    return read_questions(tmp_path / "t.csv")


def test_questions_are_read_as_truthfulqa_scores_them(questions):
    assert questions[0] == Question("What is up?", ("The sky.", "Not down."), ("The ground.", "The sea."))
    assert questions[1].true == ("Yes.", "Of course.")


def test_scores_are_sums_of_plain_log_probabilities_with_the_shift_from_the_answer_on(
    tiny, plain, tokenizer, questions
):
    for question in questions:
        found = answer_scores(tiny, tokenizer, question, [0.0, 0.7])
        for column, text in enumerate((*question.true, *question.false)):
            prompt = tokenizer(question.prompt)["input_ids"]
            answer_ids = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            for row, alpha in enumerate((0.0, 0.7)):
                with hooks(plain, tiny.iti_directions, alpha, slice(len(prompt), None)):
                    own = logs(plain, prompt + answer_ids)
                score = sum(own[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer_ids))
                assert found[row, column].item() == pytest.approx(score, rel=1e-4)


def test_mc1_and_mc2_are_truthfulqas(tiny, tokenizer, questions):
    zero, steered = multiple_choice(tiny, tokenizer, questions, [0.7])
    expected = []
    for question in questions:
        scores = answer_scores(tiny, tokenizer, question, [0.0])[0].double().exp()
        k = len(question.true)
        expected.append((float(scores[0] > scores[k:].max()), float(scores[:k].sum() / scores.sum())))
    assert zero.mc1.mean == pytest.approx(np.mean([e[0] for e in expected]))
    assert zero.mc2.mean == pytest.approx(np.mean([e[1] for e in expected]))
    assert zero.mc2_change.mean == 0 and steered.mc2_change.mean != 0


def test_a_csv_of_another_kind_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("Question,Answer\na,b\n")
    with pytest.raises(ValueError, match="no column 'Best Answer'"):
        read_questions(tmp_path / "t.csv")


# lm-evaluation-harness -----------------------------------------------------------------------------------------------------


def test_lm_evaluation_harness_steers_the_repo_as_it_is(tmp_path):
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed")
    import os
    import subprocess

    tasks = [t for t in sample_tasks("test", 200, 0) if ":any:" in t.group or ":all:" in t.group][:8]
    (tmp_path / "style.jsonl").write_text("".join(json.dumps({"prompt": task.prompt}) + "\n" for task in tasks))
    (tmp_path / "style.yaml").write_text(
        textwrap.dedent(f"""
            task: iti_style
            dataset_path: json
            dataset_kwargs:
              data_files: {{test: {tmp_path}/style.jsonl}}
            test_split: test
            output_type: multiple_choice
            doc_to_text: "{{{{prompt}}}}"
            doc_to_choice: ["for", "return"]
            doc_to_target: 1
            target_delimiter: ""
            metric_list:
              - metric: acc
        """)
    )
    found = {}
    for alpha in ("0.0", "1.0"):
        command = [
            sys.executable,
            "-m",
            "lm_eval",
            "--model",
            "hf",
            "--tasks",
            "iti_style",
            "--include_path",
            str(tmp_path),
        ]
        command += ["--model_args", f"pretrained={ROOT},trust_remote_code=True,iti_alpha={alpha}", "--device", "cpu"]
        command += ["--output_path", str(tmp_path / alpha)]
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert run.returncode == 0, run.stderr[-3000:]
        (result,) = (tmp_path / alpha).rglob("results*.json")
        found[alpha] = json.loads(result.read_text())["results"]["iti_style"]["acc,none"]
    assert found["1.0"] > found["0.0"] + 0.5
