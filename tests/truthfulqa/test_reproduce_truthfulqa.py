"""TruthfulQA as the paper did it, end to end on a small model, against plain transformers, hooks and scikit-learn."""

import csv
import itertools
import json

import numpy as np
import pytest
import torch
from reference import hooks, tiny_llama, tiny_tokenizer
from typer.testing import CliRunner

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.cli.app import app
from iti_llama.toolkit.data.labelled_set import read_examples
from iti_llama.toolkit.truthfulqa import reproduce_truthfulqa
from iti_llama.toolkit.truthfulqa.multiple_choice import read_questions
from iti_llama.toolkit.truthfulqa.reproduce_truthfulqa import labelled_rows, read_texts, reproduce


THINGS = ("cat", "dog", "sun", "rain", "king", "name", "list", "loop", "sum", "word", "line", "file")
KINDS = ("Even", "Odd")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with a CSV in TruthfulQA's schema, a tiny Llama, and what the command made of them)."""
    folder = tmp_path_factory.mktemp("truthfulqa")
    with (folder / "TruthfulQA.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
        )
        for i in range(24):
            thing = THINGS[i % 12]
            question = f"What is {'a' if i < 12 else 'the'} {thing}?"
            true, false = [f"It is {thing}", f"It has {thing}"], [f"It was {thing}", f"It had {thing}."]
            rows.writerow(["x", KINDS[i % 2], question, f"{true[0]}.", "; ".join(true), "; ".join(false), "z"])
    tiny_llama().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    words = ["reproduce", "truthfulqa", "--model", str(folder / "base"), "--data", str(folder / "TruthfulQA.csv")]
    words += ["--out", str(folder / "out"), "--top-k", "3", "--alpha", "2", "--device-map", "cpu"]
    marks = "<!-- truthfulqa: begin -->\nnot measured\n<!-- truthfulqa: end -->"
    (folder / "evidence.md").write_text(f"Before.\n{marks}\nAfter.\n")
    words += ["--markdown", str(folder / "evidence.md")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce_truthfulqa, "FEWEST", 12)
        run = CliRunner().invoke(app, words, catch_exceptions=False)
    assert run.exit_code == 0, run.output
    return folder, run.output, json.loads((folder / "out" / "truthfulqa.json").read_text())


def test_the_paper_s_rows_stand_beside_one_s_own(made):
    _, output, found = made
    assert all(word in output for word in ("25.9%", "2.48", "0.40", "ITI, 3 heads", "base, plain", "24 questions"))
    assert all(kind in output for kind in KINDS)
    assert found["questions"] == 24 and found["top_k"] == 3
    assert [choice["mc1"]["n"] for choice in found["choices"]] == [24] * 13  # plain, 2 points, 5 random each
    assert found["chance"] == pytest.approx([1 / 3, 0.5]) and "chance" in output


def test_a_document_gets_the_table(made):
    folder, _, found = made
    text = (folder / "evidence.md").read_text()
    assert text.startswith("Before.\n") and text.endswith("After.\n") and "not measured" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 4 + 5 + 1 + 2 + len(KINDS) and {line.count("|") for line in table} == {7}
    means = [choice["mc2"]["mean"] for choice in found["choices"]]
    row = [line for line in table if line.startswith("| random")][1]
    assert f"{100 * min(means[3:8]):.1f} to {100 * max(means[3:8]):.1f}%" in row


def test_tokens_are_counted_with_a_shared_prompt_and_without(made):
    """Validation has four strengths, at two Ks; the paper's point two, the choice and each random draw one."""
    folder, _, found = made
    questions, tokenizer = read_questions(folder / "TruthfulQA.csv"), tiny_tokenizer()
    passes = [(12, 24, 5, 4)] * 2 + [(0, 12, 1, 2)] + [(0, 12, 1, 1)] * 11
    passes += [(0, 12, 5, 4)] * 2 + [(12, 24, 1, 2)] + [(12, 24, 1, 1)] * 11
    read, apart, before = 0, 0, []
    for start, end, step, strengths in passes:
        for question in questions[start:end:step]:
            prompt = tokenizer(f"Q: {question.text} A:")["input_ids"]
            texts = [f" {answer}" for answer in (*question.true, *question.false)]
            lengths = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
            pairs = zip(before, prompt[:-1], strict=False)
            common = len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))
            read += len(prompt) - common + strengths * sum(length - 1 for length in lengths)
            apart += strengths * sum(len(prompt) + length for length in lengths)
            before = prompt
    assert (found["read"], found["apart"]) == (read, apart)


def test_a_fold_chooses_inside_the_guard_and_is_measured_on_the_other_questions(made):
    """The choice measured again by hooks on plain transformers, at the K and alpha that the file names."""
    folder, _, found = made
    plain, tokenizer, shares = tiny_llama(), tiny_tokenizer(), []
    for i, question in enumerate(read_questions(folder / "TruthfulQA.csv")):
        fold = found["folds"][i // 12]
        top_k, alpha = fold["chosen"]
        assert fold["chosen_divergence"]["alpha"] == alpha and top_k in (1, 3) and alpha in (1, 2, 4, 8)
        directions = ITIDirections.load(folder / "out" / f"directions-fold-{1 + i // 12}.safetensors").top(top_k)
        prompt, scores = tokenizer(question.prompt)["input_ids"], []
        for text in (*question.true, *question.false):
            answer = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            with hooks(plain, directions, alpha, slice(len(prompt), None)), torch.no_grad():
                logs = plain(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
            scores.append(sum(logs[len(prompt) - 1 + j, token].item() for j, token in enumerate(answer)))
        odds = np.exp(scores)
        shares.append(odds[: len(question.true)].sum() / odds.sum())
    assert found["choices"][2]["mc2"]["mean"] == pytest.approx(np.mean(shares), abs=1e-4)
    for kind, own in zip(KINDS, (shares[::2], shares[1::2]), strict=True):
        unsteered, _, chosen = found["categories"][kind]
        assert chosen["mc2"]["mean"] == pytest.approx(np.mean(own), abs=1e-4) and chosen["mc2"]["n"] == 12
        assert unsteered["mc2"]["n"] == 12 and found["of_chance"][kind] == pytest.approx([1 / 3, 0.5])


def test_every_answer_is_a_labelled_row_of_its_question(made):
    folder, _, _ = made
    questions = read_questions(folder / "TruthfulQA.csv")
    rows = read_examples(folder / "out" / "truthfulqa.jsonl")
    assert rows == labelled_rows(questions)
    assert len(rows) == sum(len(question.true) + len(question.false) for question in questions)
    assert (rows[0].prompt, rows[0].completion, rows[0].label) == ("Q: What is a cat? A:", " It is cat.", 1)


def test_a_fold_s_directions_come_from_the_other_questions(made):
    """Mean difference and sigma of the rows of the other half, in float64 from plain transformers' own activations."""
    folder, _, found = made
    plain, tokenizer = tiny_llama(), tiny_tokenizer()
    rows = read_examples(folder / "out" / "truthfulqa.jsonl")
    kept: dict[int, list] = {}
    for index, layer in enumerate(plain.model.layers):
        layer.self_attn.o_proj.register_forward_pre_hook(
            lambda module, arguments, index=index: kept.setdefault(index, []).append(arguments[0][0, -1].double())
        )
    for row in rows:
        ids = tokenizer(row.prompt)["input_ids"] + tokenizer(row.completion, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            plain(torch.tensor([ids]))
    texts = list(dict.fromkeys(row.group for row in rows))
    y = np.array([row.label for row in rows])
    for fold, (inside, outside) in enumerate(((texts[12:], texts[:12]), (texts[:12], texts[12:])), 1):
        directions = ITIDirections.load(folder / "out" / f"directions-fold-{fold}.safetensors")
        own = np.array([row.group in inside for row in rows])
        assert set(inside).isdisjoint(outside)
        for i, (layer, head) in enumerate(directions.heads.tolist()):
            x = torch.stack(kept[layer]).unflatten(-1, (plain.config.num_attention_heads, -1))[:, head].numpy()
            difference = x[own & (y == 1)].mean(0) - x[own & (y == 0)].mean(0)
            unit = difference / np.linalg.norm(difference)
            assert directions.directions[i].double().numpy() == pytest.approx(unit, abs=1e-4)
            assert directions.sigma[i].item() == pytest.approx((x[own] @ unit).std(), rel=1e-4)
        assert found["folds"][fold - 1]["heads"] == directions.heads.tolist()


def test_mc2_is_that_of_hooks_on_plain_transformers(made):
    folder, _, found = made
    plain, tokenizer = tiny_llama(), tiny_tokenizer()
    shares = []
    for i, question in enumerate(read_questions(folder / "TruthfulQA.csv")):
        directions = ITIDirections.load(folder / "out" / f"directions-fold-{1 + i // 12}.safetensors")
        prompt, scores = tokenizer(question.prompt)["input_ids"], []
        for text in (*question.true, *question.false):
            answer = tokenizer(" " + text, add_special_tokens=False)["input_ids"]
            with hooks(plain, directions, 2.0, slice(len(prompt), None)), torch.no_grad():
                logs = plain(torch.tensor([prompt + answer])).logits[0].double().log_softmax(-1)
            scores.append(sum(logs[len(prompt) - 1 + j, token].item() for j, token in enumerate(answer)))
        odds = np.exp(scores)
        shares.append(odds[: len(question.true)].sum() / odds.sum())
    assert found["choices"][1]["mc2"]["mean"] == pytest.approx(np.mean(shares), abs=1e-4)
    assert found["choices"][1]["mc2"]["mean"] != pytest.approx(found["choices"][0]["mc2"]["mean"], abs=1e-4)


def test_ce_and_kl_are_of_texts_with_every_token_shifted(made):
    folder, _, found = made
    plain, tokenizer = tiny_llama(), tiny_tokenizer()
    questions = read_questions(folder / "TruthfulQA.csv")[:12]
    directions = ITIDirections.load(folder / "out" / "directions-fold-1.safetensors")
    kls, losses = [], []
    for question in questions:
        ids = tokenizer("")["input_ids"]
        ids += tokenizer(f"Q: {question.text} A: {question.true[0]}", add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            before = plain(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
            with hooks(plain, directions, 2.0, slice(None)):
                after = plain(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        kls.append((before.exp() * (before - after)).sum(-1).mean().item())
        losses += (-after.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0]).tolist()
    own = found["folds"][0]["divergence"]
    assert own["kl"]["mean"] == pytest.approx(np.mean(kls), rel=1e-3)
    assert np.log(own["perplexity_steered"]) == pytest.approx(np.mean(losses), rel=1e-4)


def test_texts_of_one_s_own_are_read_and_bad_ones_named(tmp_path):
    turns = [{"role": "user", "content": "three"}, {"role": "assistant", "content": "four"}]
    rows = [{"text": "one"}, {"prompt": "two"}, {"messages": turns}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_texts(tmp_path / "t.jsonl") == ["one", "two", "three\n\nfour"]
    (tmp_path / "t.jsonl").write_text('{"text": "one"}\n{"words": "two"}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_texts(tmp_path / "t.jsonl")


@pytest.mark.parametrize("stop", ["capture", "questions"])
def test_a_steered_model_that_was_interrupted_is_as_it_was(made, adapter_dir, tmp_path, stop):
    model = ITILlamaForCausalLM.from_pretrained(adapter_dir, iti_top_k=4, iti_scope="generated", iti_alpha=0.3)
    before = model.iti_directions

    def progress(step, rows):
        if step == stop:
            raise KeyboardInterrupt

    questions = read_questions(made[0] / "TruthfulQA.csv")
    with pytest.raises(KeyboardInterrupt):
        reproduce(model, tiny_tokenizer(), questions, tmp_path / "out", top_k=3, alpha=2.0, progress=progress)
    assert model.iti_directions is before
    assert (model.iti_alpha, model.iti_scope, model.iti_top_k) == (0.3, "generated", 4)
