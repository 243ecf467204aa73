"""From a sentence to a measured repo in one command, on a tiny Llama that follows one."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard
from instruct_model import INSTRUCTION, UNHEARD, save_following, write_requests
from reference import tiny_tokenizer
from stopped import stopped_at

from iti_llama import ITILlamaForCausalLM, renew_card
from iti_llama.toolkit.foundation.complete import complete
from iti_llama.toolkit.foundation.intervals import Estimate
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.repo.steered_repo import SteeredRepo


@pytest.fixture(scope="module")
def following_dir(tmp_path_factory):
    return save_following(tmp_path_factory.mktemp("llamas") / "following")


@pytest.fixture(scope="module")
def start(run, following_dir, tmp_path_factory):
    """A function: `run --instruction` into a folder, with further options."""
    prompts = write_requests(tmp_path_factory.mktemp("requests"))

    def call(out, *options, instruction=INSTRUCTION):
        given = {"--base": following_dir, "--out": out, "--prompts": prompts, "--max-new-tokens": 20}
        given |= {"--instruction": instruction, "--perplexity-guard": 3}
        return run("run", *(x for pair in given.items() for x in pair), *options)

    return call


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "repo"
    code, said, err = start(out, "--target", "return x")
    assert code == 0, err
    return out, said


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_a_strength_is_chosen_and_measured_and_the_card_opens_with_the_sentence(whole):
    out, said = whole
    sweep, evaluation, repo = read(out, "sweep.json"), read(out, "evaluation.json"), SteeredRepo.open(out)
    assert repo.is_measured and repo.does == f'answers as if told "{INSTRUCTION}"'
    assert sweep["chosen"]["alpha"] == repo.alpha == evaluation["alpha"]
    assert sweep["chosen"]["kept"]["low"] > 0  # beyond noise
    assert (sweep["chosen"]["top_k"], sweep["chosen"]["scope"]) == repo.shipped[1:]
    card = ModelCard.load(out / "README.md").text
    kept = Estimate(**evaluation["instruction"]["kept"]["steered"])
    assert f"{kept.mean:.2f} [{kept.low:.2f}, {kept.high:.2f}]" in card
    places = [card.index(text) for text in (f"> {INSTRUCTION}", "- Cost: ", "<table>", "## Use")]
    assert places == sorted(places)
    for line in (
        "1 of 4, the instruction stands as a comment",
        "2 of 4, ",
        "3 of 4, chosen on",
        "4 of 4, measured on",
    ):
        assert line in said
    assert not out.with_name("repo.cache").exists()


def test_a_check_that_fails_comes_before_what_is_kept(whole, tmp_path):
    folder = shutil.copytree(whole[0], tmp_path / "repo")
    evaluation = read(folder, "evaluation.json")
    evaluation["checks"][0]["passed"] = False
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    renew_card(folder)
    card = ModelCard.load(folder / "README.md").text
    assert card.index("**It did not pass when it was measured: ") < card.index(f"> {INSTRUCTION}")


def test_plain_answers_are_0_and_told_ones_1_and_every_condition_is_there(whole, following_dir):
    evaluation = read(whole[0], "evaluation.json")
    rows = {row["condition"]: row for row in evaluation["conditions"]}
    told, both = "asked in words", "asked in words, steered"
    assert {"plain", "steered", "minus alpha", "random 1", "random 2", "random 3", told, both} == set(rows)
    assert rows["plain"]["target"]["mean"] == 0 and rows[told]["target"]["mean"] == 1
    assert [row["name"] for row in evaluation["summary"]][-2:] == [told, both]
    said = evaluation["instruction"]
    assert said["kept"]["minus alpha"]["mean"] < said["kept"]["steered"]["mean"]
    assert said["tokens_saved"] == len(f"# {INSTRUCTION}\n")
    example = evaluation["examples"][0]
    model = ITILlamaForCausalLM.from_pretrained(whole[0]).eval()
    answers = complete(model, tiny_tokenizer(), [example["prompt"]] * 2, [0.0, model.iti_alpha], max_new_tokens=20)
    assert answers == [example["plain"], example["steered"]]


def test_what_is_measured_on_was_neither_fitted_nor_chosen_on_and_does_not_hold_the_sentence(whole):
    rows = [json.loads(line) for line in (whole[0] / "labelled_set.jsonl").read_text().splitlines()]
    groups = {part: {r["group"] for r in rows if r["meta"]["part"] == part} for part in ("fit", "validation", "test")}
    assert [len(names) for names in groups.values()] == [24, 8, 8] and len(set.union(*groups.values())) == 40
    assert all(INSTRUCTION not in row["prompt"] for row in rows if row["meta"]["part"] != "fit")
    measured = {example["prompt"] for example in read(whole[0], "evaluation.json")["examples"]}
    assert measured == {row["prompt"] for row in rows if row["meta"]["part"] == "test"}


def test_the_choice_is_that_of_the_rule(whole):
    sweep = read(whole[0], "sweep.json")
    plain, *points = sweep["points"]
    assert plain["kept"]["mean"] == 0
    assert all((point["kept"] is None) == (point["perplexity"] > sweep["perplexity_guard"]) for point in points)
    inside = [point for point in points if point["kept"]]
    for share in [lambda point: point["at"]["correct"], lambda point: point["answering"]]:
        if share(plain)["low"] > 0.5:  # else the measure tells nothing
            least = share(plain)["mean"] - sweep["guard"] - 1e-9
            inside = [point for point in inside if share(point)["mean"] >= least]
    enough = [point for point in inside if point["kept"]["mean"] >= 1]
    most = max(inside, key=lambda point: point["kept"]["mean"])
    assert sweep["chosen"] == (enough[0] if enough else most)
    assert len(enough) <= 1  # stronger ones are not tried
    assert [point["alpha"] for point in points] == sorted(point["alpha"] for point in points)


@pytest.mark.parametrize("bar,call", [(1, 2), (1, 9), (2, 4)])
def test_a_killed_run_goes_on_and_gives_the_same(bar, call, whole, start, tmp_path, monkeypatch):
    out = tmp_path / "repo"
    with monkeypatch.context() as patch:
        patch.setattr("iti_llama.toolkit.cli.run.progress_bar", stopped_at(bar, call))
        assert start(out, "--target", "return x")[0] != 0
    assert (out / "sweep.json").exists() == (bar == 2) and not (out / "evaluation.json").exists()
    code, _, err = start(out, "--target", "return x")
    assert code == 0, err
    for name in ("sweep.json", "evaluation.json", "config.json", "README.md"):
        assert (out / name).read_text() == (whole[0] / name).read_text(), name


def test_a_second_run_does_nothing_again_and_another_sentence_is_refused(whole, start, tmp_path):
    out = shutil.copytree(whole[0], tmp_path / "repo")
    names = ("iti_report.json", "sweep.json", "evaluation.json", "config.json", "README.md")
    times = {name: (out / name).stat().st_mtime_ns for name in names}
    code, _, err = start(out, "--target", "return x")
    assert code == 0, err
    assert times == {name: (out / name).stat().st_mtime_ns for name in names}
    code, _, err = start(out, instruction="say y")
    assert code == 2 and f"holds a fit of '{INSTRUCTION}' with other settings" in " ".join(err.split())


@pytest.mark.parametrize(
    "options,said",
    [((), "of 16 for those of the other kind; expected at most 35%"), (("--against", "say y"), "not further from")],
)
def test_a_sentence_that_the_base_does_not_follow_stops_the_run_and_writes_nothing(options, said, start, tmp_path):
    code, _, err = start(tmp_path / "repo", *options, instruction=UNHEARD)
    err = " ".join(err.split())
    assert code == 2 and f"the base does not follow '{UNHEARD}': " in err and said in err and "What helps" in err
    assert not list(tmp_path.iterdir())


def test_what_the_classifier_sees_is_not_enough_where_a_checker_sees_nothing(start, tmp_path):
    code, _, err = start(tmp_path / "repo", "--target", "never")
    err = " ".join(err.split())
    assert code == 2 and "with and without it, 0.0% [" in err and "of 8 answers pass --target" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options,said",
    [
        (("--header", "say"), "--header is given with --instruction"),
        (("--place", "middle"), "--place is 'middle'; expected one of system"),
        (("--place", "system"), "--place is 'system'; expected comment"),
        (("--against", " "), "--against is ' '"),
        (("labels.jsonl",), "a labelled file is given with --instruction"),
        (("--damage", "absent.json"), "absent.json"),
        (("--damage", "mmlu.json", "--no-checks"), "--damage is 'mmlu.json', which a check reads"),
    ],
)
def test_what_a_sentence_cannot_be_given_with_is_named(options, said, start, tmp_path):
    code, _, err = start(tmp_path / "repo", *options)
    assert code == 2 and said in " ".join(err.split())


def test_labelled_texts_are_not_fitted_into_the_folder_of_a_sentence(run, whole, following_dir, tmp_path):
    rows = [
        {"prompt": f"f{n}", "completion": "yn"[label], "label": label, "group": f"{n}"}
        for n in range(20)
        for label in (0, 1)
    ]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = {path: path.read_bytes() for path in whole[0].iterdir() if path.is_file()}
    given = ("--base", following_dir, "--out", whole[0], "--behaviour", "returns y")
    code, _, err = run("run", labels, *given)
    assert code == 2 and "holds a fit of another data" in " ".join(err.split())
    assert before == {path: path.read_bytes() for path in whole[0].iterdir() if path.is_file()}


def test_a_base_that_no_adapter_can_name_is_refused_before_it_answers(run, tmp_path):
    given = ("--instruction", INSTRUCTION, "--base", ROOT, "--out", tmp_path / "repo")
    code, said, err = run("run", *given)
    assert code == 2 and "no adapter can name it; pass --self-contained" in " ".join(err.split())
    assert "1 of 4" not in said


def test_without_a_sentence_a_labelled_file_is_wanted(run, following_dir, tmp_path):
    given = ("run", "--base", following_dir, "--out", tmp_path / "repo")
    assert "no data; expected a labelled file" in " ".join(run(*given)[2].split())
    assert "--place is given without --instruction" in " ".join(run(*given, "--place", "after")[2].split())
