"""The earlier creativity steering asked again, end to end on a small model, against hooks, own runs and own trees."""

import ast
import json

import neocoder_files
import numpy as np
import pytest
import torch
from code_files import CREATIVEBENCH, HUMANEVAL
from code_files import write as write_code
from reference import hooks, tiny_llama, tiny_tokenizer
from taught import TEMPLATE
from typer.testing import CliRunner

from iti_llama import ITIDirections
from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.data.labelled_set import read_examples
from iti_llama.toolkit.foundation.files import read_rows
from iti_llama.toolkit.neocoder.creativity_tables import best_of_random_heads


BUDGET = 0.05

CONDITIONS = ["plain", "steered", "minus alpha", "random 1", "random 2", "random 3", "random 1 at the same KL"]
CONDITIONS += ['told "Use an unusual approach."', 'told "Write it as one expression."']
CONDITIONS += ['steered, told "Use an unusual approach."', "the author's solution"]

WRITTEN = {
    "plain": ["def doubled(numbers):\n    return [2 * n for n in numbers]\n", "def largest(numbers:\n"],
    "steered": [
        "def doubled(numbers):\n    return list(map(lambda n: n + n, numbers))\n",
        "largest = lambda numbers: max(numbers)\n",
    ],
    "minus alpha": ["def doubled(numbers):\n    return [2 * n for n in numbers if n < 2]\n", "largest = 3\n"],
}
"""Answers to HumanEval's rows that take the place of the small model's."""

CORRECT = {"plain": [1, 0], "steered": [1, 1], "minus alpha": [0, 0]}


def command(folder, *more) -> str:
    words = ["reproduce", "creativity", "--model", str(folder / "base"), "--source", str(folder / "neocoder")]
    words += ["--data", str(folder / "code"), "--out", str(folder / "out"), "--top-k", "8", "--n", "2"]
    words += ["--kl-budget", str(BUDGET), "--permutations", "19", "--max-new-tokens", "12", "--device-map", "cpu"]
    run = CliRunner().invoke(app, [*words, *more])
    if run.exception is not None and not isinstance(run.exception, SystemExit):
        raise run.exception
    assert run.exit_code == 0, run.output
    return run.output


@pytest.fixture(scope="module")
def made(tmp_path_factory, sandbox):
    """The folder with a tiny Llama and small data files, the output of the command, and its results."""
    folder = tmp_path_factory.mktemp("creativity")
    neocoder_files.write(folder / "neocoder", copies=6)
    write_code(folder / "code")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder / "base")
    tiny_llama(max_position_embeddings=2048).save_pretrained(folder / "base")
    output = command(folder)
    return folder, output, json.loads((folder / "out" / "creativity.json").read_text())


def test_the_earlier_numbers_stand_beside_what_they_are_worth_and_one_s_own(made):
    _, output, found = made
    flat = " ".join(output.split())
    for words in ("62.5%", "[38.6, 81.5]", "68.8%", "[44.4, 85.8]", "0.734", "Tokens of base", "0 of"):
        assert words in flat, words
    assert "labels of its own samples cannot be made" in " ".join(flat.replace("│", " ").split())
    assert [row["condition"] for row in found["rows"][:11]] == CONDITIONS and len(found["rows"]) == 33
    assert [row["tasks"] for row in found["rows"][::11]] == ["own tasks", "HumanEval", "CreativeBench-Explore"]
    assert all(row["correct"]["n"] == 2 for row in found["rows"])


def test_the_fit_is_that_of_rows_whose_problems_are_not_tested_on(made):
    """Mean differences in float64 from plain transformers' own activations, on the rows of the other problems."""
    folder, _, found = made
    rows, reading = read_examples(folder / "out" / "neocoder.jsonl"), found["reading"]
    tokenizer, plain, kept = tiny_tokenizer(), tiny_llama(max_position_embeddings=2048), {}
    for index, layer in enumerate(plain.model.layers):
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda module, arguments, index=index: kept.setdefault(index, []).append(arguments[0][0].double())
        )
    tokens, read = 0, []
    for row in rows:
        prompt, answer = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in (row.prompt, row.completion)
        )
        with torch.no_grad():
            plain(torch.tensor([prompt + answer]))
        tokens += len(prompt) + len(answer)
        read.append(len(prompt))
    assert reading["tokens"] == tokens == found["tokens"]["read to fit"]
    groups = sorted({row.group for row in rows})
    held_out = set(np.random.default_rng(0).permutation(groups)[: round(len(groups) * 0.2)].tolist())
    inside = np.array([row.group not in held_out for row in rows])
    assert (reading["rows"], reading["groups"]) == (inside.sum(), len(groups) - len(held_out))
    assert reading["test"]["n"] == (~inside).sum() and reading["test"]["groups"] == len(held_out)
    y, directions = np.array([row.label for row in rows]), ITIDirections.load(folder / "out/directions.safetensors")
    for i, (layer, head) in enumerate(directions.heads.tolist()):
        x = np.stack(
            [all_[start:].mean(0).unflatten(-1, (4, -1))[head] for all_, start in zip(kept[layer], read, strict=True)]
        )
        difference = x[inside & (y == 1)].mean(0) - x[inside & (y == 0)].mean(0)
        assert directions.directions[i].double().numpy() == pytest.approx(
            difference / np.linalg.norm(difference), abs=1e-4
        )
    assert directions.heads[0].tolist() == reading["top"]


def test_the_strength_meets_the_budget_on_plain_answers(made):
    """KL of the plain model's next tokens from those under hooks, in the answers that the command kept."""
    folder, _, found = made
    plain, tokenizer = tiny_llama(max_position_embeddings=2048), tiny_tokenizer()
    directions, texts = ITIDirections.load(folder / "out" / "directions.safetensors"), {}
    for name in ("own tasks", "HumanEval", "CreativeBench-Explore"):
        kept = read_rows(folder / "out" / f"answers-{name}.jsonl")[1:]
        texts[name] = [row["completion"] for row in kept if row["condition"] == "plain, alpha 0"]
    asked = [
        "Complete this Python function. Answer with the whole function in a ```python fence.\n\n```python\n"
        f"{row['prompt'].rstrip()}\n```"
        for row in HUMANEVAL
    ]
    kls = []
    for request, answer in zip(asked, texts["HumanEval"], strict=True):
        prompt = tokenizer(f"<bos>[user]{request}\n[assistant]", add_special_tokens=False)["input_ids"]
        ids = torch.tensor([prompt + tokenizer(answer, add_special_tokens=False)["input_ids"]])
        logs = []
        for alpha in (0.0, found["alpha"]):
            with hooks(plain, directions, alpha), torch.no_grad():
                logs.append(plain(ids).logits[0, len(prompt) - 1 : -1].double().log_softmax(-1))
        kls.append((logs[0].exp() * (logs[0] - logs[1])).sum(-1).mean().item())
    rows = {row["condition"]: row for row in found["rows"] if row["tasks"] == "HumanEval"}
    assert 0.9 * BUDGET <= rows["steered"]["kl"]["mean"] <= BUDGET * 1.01
    assert 0.9 * BUDGET <= rows["random 1 at the same KL"]["kl"]["mean"] <= BUDGET * 1.01
    assert rows["steered"]["kl"]["n"] == 6 and rows["plain"]["kl"] is None
    assert min(kls) > 0 and 0.3 * BUDGET < np.mean(kls) < 3 * BUDGET  # two of the six texts
    assert rows["random 1"]["alpha"] == -rows["minus alpha"]["alpha"] == found["alpha"]


def test_a_run_goes_on_from_kept_answers_and_judges_them_by_tests_and_trees(made):
    folder, _, before = made
    path = folder / "out" / "answers-HumanEval.jsonl"
    original = path.read_text()
    settings, *rows = read_rows(path)
    for row in rows:
        texts = WRITTEN.get(row["condition"].split(", alpha")[0])
        row["completion"] = f"```python\n{texts[row['index']]}```" if texts else row["completion"]
    path.write_text("".join(json.dumps(row) + "\n" for row in (settings, *rows)))
    document = folder / "document.md"
    document.write_text("# Ours\n\n<!-- creativity: begin -->\nNothing.\n<!-- creativity: end -->\n\nMore.\n")
    try:
        found = json.loads(command(folder, "--json", "--markdown", str(document)))
    finally:
        path.write_text(original)

    def nodes(text: str) -> set[type]:
        return {type(node) for node in ast.walk(ast.parse(text))}

    table = {row["condition"]: row for row in found["rows"] if row["tasks"] == "HumanEval"}
    parsed = nodes(WRITTEN["plain"][0])  # the second plain answer does not parse
    for name, texts in WRITTEN.items():
        new = [0.0, 0.0]
        if name != "plain":
            new[0] = float(bool(nodes(texts[0]) - parsed))
        row = table[name]
        assert row["correct"]["mean"] == np.mean(CORRECT[name]) and row["new"]["mean"] == np.mean(new), name
        assert row["both"]["mean"] == np.mean(np.multiply(CORRECT[name], new))
        assert row["characters"]["mean"] == np.mean([len(text.strip()) for text in texts])
    assert [table[name]["parses"]["mean"] for name in WRITTEN] == [0.5, 1, 1]
    assert table["steered"]["correct_change"]["mean"] == 0.5 and table["the author's solution"]["correct"]["mean"] == 1
    assert found["reading"] == before["reading"] and found["alpha"] == before["alpha"]
    text = document.read_text()
    assert "Nothing." not in text and text.endswith("<!-- creativity: end -->\n\nMore.\n")
    assert "| HumanEval | steered |" in text and "| AUC of the top head | 0.734 |" in text


def test_another_budget_or_a_document_without_a_place_is_refused(made):
    folder, _, _ = made
    with pytest.raises(ValueError, match=r"alpha\.json: was made with .*0\.05.*0\.06"):
        command(folder, "--kl-budget", "0.06")
    (folder / "none.md").write_text("# Ours\n")
    with pytest.raises(ValueError, match=r"none\.md: has no part"):
        command(folder, "--markdown", str(folder / "none.md"))


def test_the_authors_of_creativebench_s_rows_are_judged_too(made):
    _, _, found = made
    rows = {row["condition"]: row for row in found["rows"] if row["tasks"] == "CreativeBench-Explore"}
    assert rows["the author's solution"]["correct"]["mean"] == 1
    lengths = [len(row["reference_solution"].strip()) for row in CREATIVEBENCH]
    assert rows["the author's solution"]["characters"]["mean"] == np.mean(lengths)


def test_the_best_of_random_heads_is_what_pairs_say():
    """Share of (label 1, label 0) pairs in the right order, counted pair by pair."""
    rng, best = np.random.default_rng(5), []
    for _ in range(60):
        scores = rng.random((16, 1024))
        best.append((scores[:8, None] > scores[None, 8:]).mean((0, 1)).max())
    low, median = best_of_random_heads()
    assert median == pytest.approx(np.median(best), abs=0.02) and low == pytest.approx(
        np.quantile(best, 0.05), abs=0.02
    )
    assert low > 0.734
