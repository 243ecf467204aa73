"""A second sentence in the same repo: it gets a strength of its own, and the card has a row for each and for both."""

import json
import shutil
from itertools import combinations

import pytest
import torch
from instruct_model import INSTRUCTION, SECOND, following_llama, save_following, write_requests
from reference import tiny_tokenizer
from stopped import stopped_at

from iti_llama import ITILlamaForCausalLM, renew_card
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.measure.kept import AnswerClassifier
from iti_llama.toolkit.repo import steered_repo
from iti_llama.toolkit.repo.steered_repo import SteeredRepo


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_following(tmp_path_factory.mktemp("llamas") / "following", two=True)


@pytest.fixture(scope="module")
def start(run, base, tmp_path_factory):
    """A function: `run --instruction` into a folder, with further options."""
    prompts = write_requests(tmp_path_factory.mktemp("requests"))

    def call(out, *options, instruction=SECOND, base=base):
        given = {"--base": base, "--out": out, "--prompts": prompts, "--instruction": instruction}
        given |= {"--perplexity-guard": 5}
        return run("run", *(x for pair in given.items() for x in pair), "--no-checks", *options)

    return call


@pytest.fixture(scope="module")
def first(start, tmp_path_factory):
    """A repo of the first sentence: to be copied, not to be changed."""
    out = tmp_path_factory.mktemp("first") / "repo"
    code, _, err = start(out, "--max-new-tokens", 20, instruction=INSTRUCTION)
    assert code == 0, err
    return out


@pytest.fixture(scope="module")
def both(start, first, tmp_path_factory):
    """(repo, what was said): the first one's, with the second sentence as "going"."""
    out = shutil.copytree(first, tmp_path_factory.mktemp("both") / "repo")
    code, said, err = start(out, "--name", "going")
    assert code == 0, err
    return out, said


@pytest.fixture
def halfway(first, both, tmp_path):
    """The first one's repo, where the second behaviour is made, but neither measured beside it nor joined."""
    alone = both[0].with_name("repo-going")
    shutil.copytree(alone, tmp_path / alone.name, ignore=shutil.ignore_patterns("completions_*"))
    return shutil.copytree(first, tmp_path / "repo")


def read(folder, name):
    return json.loads((folder / name).read_text())


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_repo_holds_two_behaviours_each_with_the_strength_that_was_chosen_for_it(first, both):
    out, alone = both[0], SteeredRepo.open(both[0].with_name("repo-going"))
    repo = SteeredRepo.open(out)
    going = repo.behaviours["going"]
    assert [repo.alpha, going.alpha, going.top_k] == [SteeredRepo.open(first).alpha, alone.alpha, alone.default.top_k]
    assert read(out, "sweep.going.json")["chosen"]["alpha"] == going.alpha and alone.scope == repo.scope
    assert read(out, "iti_report.going.json")["instruction"]["text"] == SECOND
    for name in ("iti_directions.safetensors", "iti_report.json", "sweep.json"):
        assert (out / name).read_bytes() == (first / name).read_bytes()
    assert read(out, "evaluation.json") == read(first, "evaluation.json") | {"together": repo.together}
    assert ITILlamaForCausalLM.from_pretrained(out).iti_strengths == {"default": repo.alpha, "going": going.alpha}


def test_each_row_is_what_the_model_answers_at_these_strengths(both):
    out, together = both[0], read(both[0], "evaluation.json")["together"]
    rows = {row["condition"]: row for row in together["rows"]}
    assert list(rows) == ["plain", "default alone", "going alone", "both", "told default", "told going"]
    held = {
        name: [json.loads(line) for line in (folder / "labelled_set.jsonl").read_text().splitlines()]
        for name, folder in (("default", out), ("going", out.with_name("repo-going")))
    }
    prompts = [row["prompt"] for row in held["going"] if row["meta"]["part"] == "test" and row["label"] == 1]
    model, plain = ITILlamaForCausalLM.from_pretrained(out).eval(), following_llama(two=True)
    a, b = model.iti_strengths.values()
    answers = {
        "plain": complete(plain, tiny_tokenizer(), prompts, max_new_tokens=20),
        "told default": complete(
            plain, tiny_tokenizer(), [f"# {INSTRUCTION}\n{p}" for p in prompts], max_new_tokens=20
        ),
        "told going": complete(plain, tiny_tokenizer(), [f"# {SECOND}\n{p}" for p in prompts], max_new_tokens=20),
    }
    for condition, strengths in (("default alone", (a, 0.0)), ("going alone", (0.0, b)), ("both", (a, b))):
        model.set_iti(dict(zip(("default", "going"), strengths, strict=True)))
        answers[condition] = complete(model, tiny_tokenizer(), prompts, max_new_tokens=20)
    for name, rows_of in held.items():
        fit = [[r["completion"] for r in rows_of if (r["meta"]["part"], r["label"]) == ("fit", n)] for n in (0, 1)]
        classifier = AnswerClassifier.fit(*fit)
        mean = {condition: classifier.log_odds(texts).mean() for condition, texts in answers.items()}
        for condition, row in rows.items():
            share = (mean[condition] - mean["plain"]) / (mean[f"told {name}"] - mean["plain"])
            assert row["kept"][name]["mean"] == pytest.approx(share, abs=1e-6), (name, condition)
            assert row["kept"][name]["n"] == together["n"] == len(prompts)
    steered = [answers[condition] for condition in ("plain", "default alone", "going alone")]
    assert all(one != other for one, other in combinations(steered, 2))


def test_what_both_cost_is_measured_with_both(both):
    out, together = both[0], read(both[0], "evaluation.json")["together"]
    rows = [json.loads(line) for line in (out.with_name("repo-going") / "labelled_set.jsonl").read_text().splitlines()]
    prompts = [row["prompt"] for row in rows if row["meta"]["part"] == "test" and row["label"] == 1]
    losses = []
    for model in (following_llama(two=True), ITILlamaForCausalLM.from_pretrained(out).eval()):
        total = count = 0
        for prompt in prompts:
            ids = torch.tensor([tiny_tokenizer()(prompt)["input_ids"]])
            with torch.no_grad():
                logs = model(ids).logits[0, :-1].log_softmax(-1)
            total, count = total - logs.gather(-1, ids[0, 1:, None]).sum(), count + ids.shape[1] - 1
        losses.append(total / count)
    assert together["scope"] == "all"  # else these passes would shift other positions
    assert together["perplexity"] == pytest.approx(float((losses[1] - losses[0]).exp()), rel=2e-3)


def test_the_card_and_the_command_show_the_rows(both, tmp_path):
    out, said = both
    card, together = (out / "README.md").read_text(), read(out, "evaluation.json")["together"]
    assert f"> {INSTRUCTION}" in card and f"> {SECOND}" in card
    for row in together["rows"]:
        line = next(line for line in card.splitlines() if line.startswith(f"| {row['condition']} |"))
        for kept in (Estimate(**values) for values in row["kept"].values()):
            assert f"{kept.mean:.2f} [{kept.low:.2f}, {kept.high:.2f}]" in line
        assert row["condition"] in said
    folder = shutil.copytree(out, tmp_path / "repo")
    steered_repo.change_fields(folder, iti_alpha=0.123)
    renew_card(folder)
    assert "| both |" in card and "| both |" not in (folder / "README.md").read_text()


def test_a_second_time_nothing_is_done_again(both, start, tmp_path):
    out = shutil.copytree(both[0], tmp_path / "repo")  # without the folder of the second behaviour alone
    before = contents(out)
    code, said, err = start(out, "--name", "going")
    assert code == 0 and "has going already" in " ".join(said.split()), err
    assert contents(out) == before and [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_a_kill_leaves_the_first_behaviour_whole_and_a_second_try_goes_on(halfway, both, start, monkeypatch):
    before = contents(halfway)

    def killed(*given, **changes):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("iti_llama.toolkit.cli.run.progress_bar", stopped_at(3, 3))
        assert start(halfway, "--name", "going")[0] != 0
    assert contents(halfway) == before
    with monkeypatch.context() as patch:
        patch.setattr(steered_repo, "change_fields", killed)
        assert start(halfway, "--name", "going")[0] != 0
    assert (halfway / "iti_directions.going.safetensors").is_file()
    same = ("config.json", "iti_directions.safetensors", "iti_report.json", "sweep.json", "README.md")
    assert all((halfway / name).read_bytes() == before[name] for name in same)
    assert SteeredRepo.open(halfway).is_measured and SteeredRepo.open(halfway).together is None
    assert renew_card(halfway) and (halfway / "README.md").read_bytes() == before["README.md"]
    assert list(ITILlamaForCausalLM.from_pretrained(halfway).iti_strengths) == ["default"]
    code, _, err = start(halfway, "--name", "going")
    assert code == 0, err
    for name in ("config.json", "evaluation.json", "README.md", "iti_report.going.json"):
        assert (halfway / name).read_text() == (both[0] / name).read_text(), name


@pytest.mark.parametrize(
    "options,said",
    [
        (("--name", "going", "--seed", 3), "has a behaviour 'going' that was made otherwise"),
        (("--name", "third"), "has default, going; --name adds a second behaviour"),
        (("--name", "default"), "--name is 'default'"),
        (("--name", "../x"), "expected a name of at most 64 letters"),
        (("--name", "third", "--max-new-tokens", 30), "--max-new-tokens is 30; expected 20"),
        (("--name", "third", "--base-name", "other"), "--base-name is 'other'; expected 'following'"),
    ],
)
def test_what_cannot_be_added_is_named_and_nothing_changes(options, said, both, start, tmp_path):
    out = shutil.copytree(both[0], tmp_path / "repo")
    before = contents(out)
    code, _, err = start(out, *options)
    assert code == 2 and said in " ".join(err.split()), err
    assert contents(out) == before and [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_another_base_is_refused_before_the_work(first, base, start, tmp_path):
    out = shutil.copytree(first, tmp_path / "repo")
    model = following_llama(two=True)
    other = shutil.copytree(base, tmp_path / "other" / base.name)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["model.layers.0.mlp.up_proj.weight"] += 0.01
    model.save_pretrained(other, state_dict=weights)
    code, _, err = start(out, "--name", "going", base=other)
    measured = read(out, "evaluation.json")["model"]
    assert code == 2 and f"expected {measured}, on which" in " ".join(err.split())
    assert not (tmp_path / "repo-going").exists() and contents(out) == contents(first)


def test_only_a_finished_repo_of_a_sentence_gets_a_second_one(first, fitted, run, start, tmp_path):
    code, _, err = start(tmp_path / "absent", "--name", "going")
    assert code == 2 and "no steered repo, and --name adds to one" in " ".join(err.split())
    code, _, err = start(fitted, "--name", "going")
    assert code == 2 and "was not made from a sentence" in " ".join(err.split())
    for name, said in (("evaluation.json", "is not finished"), ("labelled_set.jsonl", "labelled_set.jsonl: no such")):
        out = shutil.copytree(first, tmp_path / name)
        (out / name).unlink()
        code, _, err = start(out, "--name", "going")
        assert code == 2 and said in " ".join(err.split())
    given = ("run", "labels.jsonl", "--base", tmp_path, "--out", first, "--name", "going")
    assert "--name is given without --instruction" in " ".join(run(*given)[2].split())
