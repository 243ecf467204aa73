"""A sweep from grid to choice, on the bundled model and on labelled pairs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from reference import SCOPE_POSITIONS, hooks, tiny_tokenizer
from transformers import LlamaForCausalLM

from iti_llama.toolkit.measure.bundled_tasks import corpus_set
from iti_llama.toolkit.measure.choose_strength import Grid, choose_strength, strength_of_budget
from iti_llama.toolkit.measure.evaluate import sweep_settings_of
from iti_llama.toolkit.measure.saved_completions import SavedCompletions


def test_a_grid_is_swept_chosen_from_and_written_with_few_digits(bundled, sandbox):
    model, tokenizer = bundled
    before = (model.iti_alpha, model.iti_top_k, model.iti_scope)
    tasks, fresh = corpus_set("validation", 10, seed=6), corpus_set("validation", 6, seed=9)
    choice = choose_strength(model, tokenizer, tasks, Grid([0.5, 1.0]), sandbox, confirm=fresh)
    assert [point.alpha for point in choice.points] == [0, 0.5, 1.0] and choice.best.alpha == 0.5
    assert choice.points[1].perplexity < 1.1 < choice.points[2].perplexity  # where more answers are idiomatic
    assert choice.why == "" and [row.condition for row in choice.confirmed] == ["plain", "steered"]
    assert (model.iti_alpha, model.iti_top_k, model.iti_scope) == before
    found = json.loads(json.dumps(choice.to_dict()))
    assert found["chosen"]["alpha"] == choice.best.alpha
    for point in found["points"]:
        assert float(f"{point['kl']:.2g}") == point["kl"] and round(point["perplexity"], 3) == point["perplexity"]


def test_a_strength_that_does_nothing_is_not_chosen(bundled, sandbox):
    model, tokenizer = bundled
    choice = choose_strength(model, tokenizer, corpus_set("validation", 4, seed=2), Grid([1e-4]), sandbox)
    assert choice.best is None and "nothing is applied" in choice.why and choice.to_dict()["chosen"] is None


def test_grids_that_cannot_be_swept_are_refused():
    with pytest.raises(ValueError, match="expected positive numbers"):
        Grid([0.0, 1.0])
    with pytest.raises(ValueError, match="one K and one scope"):
        Grid([1.0], scopes=("all", "generated"), kl_budget=0.1)


GRID = Grid([0.6, 1.2, 2.4], kl_guard=0.25)


@pytest.fixture(scope="module")
def chosen(taught, held_out_pairs):
    tasks, confirm = held_out_pairs("validation"), held_out_pairs("test")
    return choose_strength(taught, tiny_tokenizer(), tasks, GRID, None, confirm)


def test_a_strength_is_chosen_on_pairs_that_beats_chance_on_other_pairs(chosen):
    best = max((p for p in chosen.points if p.kl <= 0.25), key=lambda p: p.at.odds.mean)
    assert chosen.why == "" and chosen.best.alpha == best.alpha == 1.2
    draws = [draw[2 * list(chosen.alphas).index(chosen.best.alpha)] for draw in chosen.random]
    assert len(draws) == 3
    for draw in draws:
        assert np.mean(np.subtract(chosen.best.at.odds_by_task, draw.odds_by_task)) > 0
    plain, steered = chosen.confirmed
    assert steered.measures["log-odds"].mean > plain.measures["log-odds"].mean and steered.correct.n == 8
    found = json.loads(json.dumps(chosen.to_dict()))
    assert found["chosen"]["at"]["odds"]["mean"] == chosen.best.at.odds.mean
    assert all("odds_by_task" not in rates for draw in found["random"] for rates in draw)


def test_a_kl_guard_that_nothing_keeps_chooses_nothing(taught, held_out_pairs):
    choice = choose_strength(
        taught, tiny_tokenizer(), held_out_pairs("validation"), replace(GRID, kl_guard=1e-9), None
    )
    assert choice.best is None and choice.random == () and "nothing is applied" in choice.why


def test_tasks_without_a_target_are_refused_and_a_budget_is_offered(taught, held_out_pairs):
    with pytest.raises(ValueError, match="do not say what is wanted; pass --target, or --kl-budget alone"):
        choose_strength(taught, tiny_tokenizer(), held_out_pairs("validation", pairs=False), GRID, None)


@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_killed_sweep_goes_on_and_makes_the_same_choice(stop_after, chosen, taught, held_out_pairs, tmp_path):
    tasks, steps, path = held_out_pairs("validation"), [], tmp_path / "store.jsonl"
    settings = sweep_settings_of(taught, tasks)

    def killed(step, rows):
        steps.append(rows)
        if len(steps) == stop_after:
            raise KeyboardInterrupt

    small = {"batch_size": 24}  # several batches for a point
    whole = choose_strength(taught, tiny_tokenizer(), tasks, GRID, None, **small)
    before = (taught.iti_top_k, taught.iti_scope)
    with pytest.raises(KeyboardInterrupt):
        choose_strength(
            taught,
            tiny_tokenizer(),
            tasks,
            GRID,
            None,
            progress=killed,
            store=SavedCompletions(path, settings),
            **small,
        )
    assert (taught.iti_top_k, taught.iti_scope) == before
    kept = path.read_text()
    assert len(kept.splitlines()) == 1 + sum(steps)
    with path.open("a") as file:
        file.write('{"condition": "6 he')
    again = choose_strength(
        taught, tiny_tokenizer(), tasks, GRID, None, store=SavedCompletions(path, settings), **small
    )
    assert again == whole and again.best.alpha == chosen.best.alpha
    rows = path.read_text()
    keys = [(row["condition"], row["index"]) for row in map(json.loads, rows.splitlines()[1:])]
    assert rows.startswith(kept) and len(set(keys)) == len(keys)


def mean_kl(plain, directions, scope, texts, alpha) -> float:
    """The mean over texts of the mean KL over a completion's tokens, in float64, with hooks on a plain Llama."""
    tokenizer, found = tiny_tokenizer(), []
    for text in texts:
        prompt = tokenizer(text.prompt)["input_ids"]
        ids = torch.tensor([prompt + tokenizer(text.completion, add_special_tokens=False)["input_ids"]])
        where = (torch.arange(ids.shape[1]) >= len(prompt) - 1).float()[None] if scope == "generated" else slice(None)
        with torch.no_grad():
            before = plain(ids).logits[0].double().log_softmax(-1)[len(prompt) - 1 : -1]
            with hooks(plain, directions, alpha, where):
                after = plain(ids).logits[0].double().log_softmax(-1)[len(prompt) - 1 : -1]
        found.append((before.exp() * (before - after)).sum(-1).mean().item())
    return float(np.mean(found))


@pytest.mark.parametrize("scope", list(SCOPE_POSITIONS))
def test_the_strength_of_a_budget_is_inside_it_and_nearly_at_it(scope, taught, taught_dir, held_out_pairs):
    texts, plain = held_out_pairs("validation").texts["label 0 texts"], LlamaForCausalLM.from_pretrained(taught_dir)
    before = (taught.iti_alpha, taught.iti_top_k, taught.iti_scope)
    found = strength_of_budget(
        taught, tiny_tokenizer(), texts, Grid([1.0], top_ks=[4], scopes=[scope], kl_budget=0.05)
    )
    assert (taught.iti_alpha, taught.iti_top_k, taught.iti_scope) == before
    assert (found.top_k, found.scope, found.n) == (4, scope, len(texts))
    directions = taught.iti_directions.top(4)
    assert 0.045 < mean_kl(plain, directions, scope, texts, found.alpha) <= 0.05 + 1e-6
    assert mean_kl(plain, directions, scope, texts, 1.05 * found.alpha) > 0.05
    assert float(f"{found.alpha:.3g}") == found.alpha


def test_a_budget_can_be_swept_against_the_control_as_well(taught, held_out_pairs):
    grid = Grid([1.0], kl_budget=0.01)
    choice = choose_strength(taught, tiny_tokenizer(), held_out_pairs("validation"), grid, None)
    (_, point), budget = (
        choice.points,
        strength_of_budget(taught, tiny_tokenizer(), held_out_pairs("validation").texts["label 0 texts"], grid),
    )
    assert point.alpha == budget.alpha and point.kl <= 0.01
