"""The measurement on natural code: what is computed, against scikit-learn and plain transformers; the whole of it,
small, on a model that knows nothing."""

import json
import random
import shutil
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from iti_llama.examples.natural.behaviours import BEHAVIOURS
from iti_llama.examples.natural.corpus import Source
from iti_llama.examples.natural.measure import (
    Bench,
    Plan,
    after_projection,
    auc_of,
    balanced,
    measured,
    parses,
    perplexity,
)
from iti_llama.examples.natural.ngrams import NGrams
from iti_llama.examples.natural.show import show
from iti_llama.examples.natural.train import Recipe, train, windows
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import capture
from iti_llama.toolkit.repo.fit_repo import load_base


RECIPE = Recipe(
    vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, batch_size=4, epochs=4,
)  # fmt: skip

WORDS = ("count", "items", "text", "path", "total", "name", "rows", "size")

PLAN = Plan(rows=40, read=20, validation=8, test=12, sampled=4, texts=4, free=4, top_ks=(2,), alphas=(8.0,), guard=0.5)


def source(package: str, number: int) -> Source:
    """A file of eight functions, half of them with a docstring, an annotation, a comprehension and an f-string."""
    rng, parts = random.Random(f"{package}{number}"), ['"""A module."""\n']
    for i in range(8):
        name, arg, other = rng.sample(WORDS, 3)
        hint, words = (": list", f'    """Return the {name} of {arg}."""\n') if i % 2 else ("", "")
        body = f"    {other} = [x for x in {arg}]\n" if i % 2 else f"    {other} = []\n    for x in {arg}:\n        "
        body += f'    print(f"{{{arg}}}")\n' if i % 2 else f'{other}.append(x)\n    print("%s" % {arg})\n'
        parts.append(f"def {name}_{i}({arg}{hint}):\n{words}{body}    return {other}\n")
    return Source(package, f"file{number}.py", "\n\n".join(parts))


@pytest.fixture(scope="module")
def found():
    return [
        source(package, i) for package in ("click", "joblib", "rich") for i in range(30 if package == "click" else 6)
    ]


@pytest.fixture(scope="module")
def bench(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("natural")
    train(RECIPE, folder / "model", found)
    model, tokenizer = load_base(folder / "model", dtype="float32")
    return Bench(model, tokenizer, found, PLAN, folder, lambda text: None)


def test_prompts_are_of_both_labels_and_leave_room_for_an_answer(bench):
    for behaviour in BEHAVIOURS:
        rows = balanced(bench.rows(behaviour, "test"), 5, seed=0)
        assert sorted(row.label for row in rows) == [0] * 5 + [1] * 5
        assert {row.group.split("/")[0] for row in rows} == {"rich"}
        longest = max(len(bench.tokenizer(row.prompt)["input_ids"]) for row in rows)
        assert longest + behaviour.max_new_tokens <= 512


def test_where_one_label_is_short_there_are_more_of_the_other(bench):
    (behaviour,) = (one for one in BEHAVIOURS if one.name == "docstring")
    whole = bench.rows(behaviour, "test")
    few = [row for row in whole if row.label][:2] + [row for row in whole if not row.label]
    bench = replace(bench)
    bench.rows = lambda behaviour, part: few
    tasks = bench.tasks(behaviour, "test", 12)
    prompts = {row.prompt: row.label for row in few}
    assert sorted(prompts[task.prompt] for task in tasks.tasks) == [0] * 10 + [1] * 2


def test_slices_after_the_projection_are_what_the_attention_gives(bench):
    rows = balanced(bench.rows(BEHAVIOURS[0], "test"), 3, seed=0)
    found = after_projection(bench.model, capture(bench.model, bench.tokenizer, rows, Policy("last")).heads)
    ids = bench.tokenizer(rows[0].prompt)["input_ids"]
    ids += bench.tokenizer(rows[0].completion, add_special_tokens=False)["input_ids"]
    with torch.no_grad(), ExitStack() as hooks:
        seen = []
        for block in bench.model.model.layers:
            own = block.self_attn.o_proj.register_forward_hook(lambda module, given, made: seen.append(made[0, -1]))
            hooks.callback(own.remove)
        bench.model(input_ids=torch.tensor([ids]))
    assert torch.allclose(found[0].flatten(1), torch.stack(seen), atol=1e-5)


def test_perplexity_is_that_of_plain_transformers_and_of_the_n_grams(bench, found):
    told = perplexity(bench.model, bench.tokenizer, found, seed=0, order=3)
    rows = windows([one.text for one in found if one.part == "test"], bench.tokenizer, 512).long()
    train_rows = windows([one.text for one in found if one.part == "train"], bench.tokenizer, 512)
    with torch.no_grad():
        logs = bench.model(input_ids=rows).logits[:, 1:-1].double().log_softmax(-1)
    losses = -logs.gather(-1, rows[:, 2:, None])
    assert told["model"] == pytest.approx(np.exp(losses.mean().item()), rel=1e-4)
    counted = NGrams(train_rows.flatten().numpy(), len(bench.tokenizer), 3)
    theirs = np.concatenate([-np.log(counted.probabilities(row.numpy())) for row in rows])
    assert told["n-grams"] == pytest.approx(np.exp(theirs.mean()), rel=1e-6)
    assert told["tokens"] == losses.numel()


def test_an_auc_has_an_interval_by_group_and_a_difference_is_paired():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    scores, worse = y + rng.normal(0, 1, 200), y + rng.normal(0, 3, 200)
    groups = [f"g{i // 4}" for i in range(200)]
    own = auc_of(scores, y, groups)
    assert own.mean == pytest.approx(roc_auc_score(y, scores)) and own.low < own.mean < own.high
    assert own.groups == 50
    gain = auc_of(scores, y, groups, worse)
    assert gain.mean == pytest.approx(roc_auc_score(y, scores) - roc_auc_score(y, worse)) and gain.low > 0


@pytest.mark.parametrize(
    "text,whole",
    [
        ("import os\n\n\ndef f(x):\n    return x\n\n\ndef g(", True),
        ("import os\nx = [1,\n    2,\n]\ny =", True),
        ("import import\n\n\ndef g(x):\n", False),
        ("def f(x):\n    return x", False),
        ("", False),
    ],
)
def test_a_module_that_was_cut_off_parses_up_to_there(text, whole):
    assert parses(text) is whole


def test_a_behaviour_is_measured_from_rows_to_tables(bench, tmp_path):
    """Nothing is asserted of the effect: the model is tiny. The answers, the tables and the figure are of one run."""
    short = next(replace(one, max_new_tokens=16) for one in BEHAVIOURS if one.name == "f-string")
    behaviours = {"f-string": measured(bench, short)}
    results = {
        "perplexity": perplexity(bench.model, bench.tokenizer, bench.found, 0),
        "free samples that parse": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 4, "groups": 4},
        "plan": {"validation": 8},
        "behaviours": json.loads(json.dumps(behaviours)),
    }
    (tmp_path / "README.md").write_text("# x\n<!-- natural: begin -->\n<!-- natural: end -->\n")
    shutil.copy(tmp_path / "README.md", tmp_path / "short.md")
    text = show(results, tmp_path / "README.md", tmp_path / "curves.png", tmp_path / "short.md")
    assert "| f-string |" in (tmp_path / "short.md").read_text()
    assert text in (tmp_path / "README.md").read_text() and (tmp_path / "curves.png").stat().st_size > 1000
    for name, one in results["behaviours"].items():
        assert 0.4 < one["reading"]["held out"]["words"]["mean"] <= 1
        assert {row["variant"] for row in one["curve"]} >= {"mean-difference, last prompt token, scope all"}
        assert len(one["curve"]) == 5 * 2 and name in text
        if one["chosen"]:
            assert (bench.out / f"{name}.safetensors").exists()
            assert [row["alpha"] for row in one["greedy"]["conditions"]][:2] == [0.0, one["chosen"]["alpha"]]
            assert one["sampled"]["samples"] == 2 and one["greedy"]["n"] == 12
