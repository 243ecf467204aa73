"""The card: what it says is what the files beside it hold, and what its owner wrote is kept."""

import json
import math
import re
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import EvalResult, ModelCard
from reference import tiny_tokenizer
from steered import replace_directions
from taught import two_ways

from iti_llama import ITIDirections, ITILlamaForCausalLM
from iti_llama.toolkit.fit.settings import FitSettings
from iti_llama.toolkit.measure.keep_labelled_set import read_parts
from iti_llama.toolkit.measure.labelled_tasks import labelled_set
from iti_llama.toolkit.measure.measure_steering import measure_steering
from iti_llama.toolkit.measure.settings import MeasureSettings
from iti_llama.toolkit.measure.summary import BOTH, TOLD
from iti_llama.toolkit.repo.card import LIVE, name_repo, renew_card, write_card, write_results
from iti_llama.toolkit.repo.fit_repo import fit_repo
from iti_llama.toolkit.repo.settings import RepoSettings


def test_the_quick_start_names_the_repo():
    text = name_repo('x\nrepo = "."  # here\n`iti-llama verify REPO`\n', "me/y")
    assert text == 'x\nrepo = "me/y"\n`iti-llama verify me/y`\n'


def edit(folder, name: str = "config.json", **fields) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def reworded(folder, behaviour: str) -> None:
    """The behaviour is in the directions' provenance."""
    path = folder / "iti_directions.safetensors"
    directions = ITIDirections.load(path)
    replace_directions(folder, replace(directions, provenance=directions.provenance | {"behaviour": behaviour}))


def text_of(folder) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def part(text: str, name: str) -> str:
    return text.split(f"<!-- iti-{name}: begin -->\n")[1].split(f"\n<!-- iti-{name}: end -->")[0]


@pytest.fixture(scope="module")
def evaluation(fitted_dir) -> dict:
    model = ITILlamaForCausalLM.from_pretrained(fitted_dir).eval()
    pairs = labelled_set("held-out:test", read_parts(fitted_dir, "test"), pairs=True)
    return json.loads(
        json.dumps(measure_steering(model, tiny_tokenizer(), pairs, None, MeasureSettings(checks=True)).record)
    )


@pytest.fixture
def measured(fitted, evaluation):
    """A fitted repo that was measured as it is, with its card."""
    (fitted / "evaluation.json").write_text(json.dumps(evaluation))
    assert renew_card(fitted)
    return fitted


def test_a_card_names_the_behaviour_and_says_that_nothing_was_measured(fitted):
    card = ModelCard.load(fitted / "README.md")
    assert "# taught, steered: returns x\n" in card.text and card.data.model_name == "taught, steered: returns x"
    assert card.data.eval_results is None and "Not measured: alpha was not chosen on any data" in card.text
    assert card.data.pipeline_tag == "text-generation" and "activation-steering" in card.data.tags
    assert "two_ways.jsonl" in part(card.text, "made")


def test_a_card_of_a_measured_repo_has_its_numbers_for_people_and_for_the_hub(measured, evaluation):
    card = ModelCard.load(measured / "README.md")
    summary = {row["name"]: row for row in evaluation["summary"]}
    for row in summary.values():
        assert f"| {100 * row['target']['mean']:.1f}% [" in part(card.text, "receipt")
    assert "| steered (alpha 1) |" in card.text and evaluation["how"] in card.text
    found = {one.metric_name: one.metric_value for one in card.data.eval_results}
    assert found == {
        f"share: prefers label 1, {name} (alpha {alpha})": round(summary[name]["target"]["mean"], 4)
        for name, alpha in (("plain", 0), ("steered", 1))
    }
    assert {one.dataset_name for one in card.data.eval_results} == {"held-out:test, 8 answers"}
    ModelCard(str(card))  # what is written is read again


def test_what_programs_answered_goes_into_the_header_of_a_card_of_its_owners(evaluation, tmp_path):
    """As `evaluate --card` does it."""
    row = {"kl": None, "odds_change": None, "sound": estimate(0.97), "target": estimate(0.25)}
    rows = [row | {"name": "plain", "alpha": 0.0}, row | {"name": "minus alpha", "alpha": -2.0}]
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n\nMy words.\n")
    told = {"tasks": "t", "sound": "correct", "target": "short", "summary": rows}
    write_results(tmp_path / "README.md", evaluation | told)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.model_name, card.data.license, card.text.strip()) == ("Mine", "mit", "# Mine\n\nMy words.")
    found = {(one.metric_type, one.metric_name, one.metric_value) for one in card.data.eval_results}
    plain = "plain (alpha 0)"
    assert found == {("pass@1", f"pass@1, {plain}", 0.97), ("target-share", f"share: short, {plain}", 0.25)}
    assert {one.dataset_name for one in card.data.eval_results} == {"t, 80 answers"}


@pytest.mark.parametrize(
    "fields,said",
    [
        ({"iti_alpha": 2.5}, "alpha 2.5, 6 heads, scope all"),
        ({"iti_top_k": 3}, "alpha 1, 3 heads, scope all"),
        ({"iti_scope": "generated"}, "alpha 1, 6 heads, scope generated"),
    ],
)
def test_a_change_of_the_steering_takes_the_old_numbers_from_the_card(measured, fields, said):
    edit(measured, **fields)
    assert renew_card(measured)
    text = text_of(measured)
    assert f"Not measured as it is now ({said}): the last evaluation was of alpha 1, 6 heads, scope all." in text
    assert "| plain (alpha 0) |" not in text and "model-index" not in text and "<td>" not in text
    what = part(text, "what")
    assert f"{fields.get('iti_top_k', 6)} attention heads are shifted by alpha = {fields.get('iti_alpha', 1)} " in what
    assert ("all after it" in what) == (fields.get("iti_scope") == "generated")
    edit(measured, **{"iti_alpha": 1.0, "iti_top_k": None, "iti_scope": "all"})
    assert renew_card(measured) and "| steered (alpha 1) |" in text_of(measured)


def test_the_table_of_the_fit_is_called_that_where_other_heads_are_used(measured):
    note = "Table and figure are of the fit, which kept 6 heads; 3 are used now.\n\n| fit | |"
    assert "are of the fit" not in part(text_of(measured), "made")
    edit(measured, iti_top_k=3)
    assert renew_card(measured) and note in part(text_of(measured), "made")
    assert "| heads | 6 of " in part(text_of(measured), "made")


def test_other_directions_take_the_old_numbers_from_the_card(measured):
    path = measured / "iti_directions.safetensors"
    directions = ITIDirections.load(path)
    replace_directions(measured, replace(directions, directions=-directions.directions))
    renew_card(measured)
    assert "Not measured as it is now" in text_of(measured) and "| plain (alpha 0) |" not in text_of(measured)


def test_what_the_owner_wrote_is_kept(measured):
    text = text_of(measured).replace("## Citation", "## Thanks\n\nTo my cat.\n\n## Citation")
    text = text.replace(
        "tags:\n", "thumbnail: cat.png\nextra_gated_prompt: Be kind.\ninference: false\ntags:\n- cats\n"
    )
    (measured / "README.md").write_text("\n".join(text.split("\n")), encoding="utf-8")
    edit(measured, iti_alpha=2.0)
    assert renew_card(measured)
    card = ModelCard.load(measured / "README.md")
    assert "## Thanks\n\nTo my cat.\n" in card.text
    kept = card.data.to_dict()
    assert (kept["thumbnail"], kept["extra_gated_prompt"], kept["inference"]) == ("cat.png", "Be kind.", False)
    assert "cats" in kept["tags"] and "alpha = 2 " in card.text


def test_a_card_says_how_to_do_without_remote_code(fitted):
    said = part(text_of(fitted), "start")
    assert "or install the package `iti-llama`, `import iti_llama`, and leave it out" in said


def test_a_licence_that_the_owner_wrote_is_kept_where_none_is_known(fitted):
    text = text_of(fitted).replace("license: other\nlicense_name: license-of-the-base-model", "license: apache-2.0")
    (fitted / "README.md").write_text(text, encoding="utf-8")
    renew_card(fitted)
    assert ModelCard.load(fitted / "README.md").data.license == "apache-2.0"
    (fitted / "README.md").write_text(text.replace("license: apache-2.0", "license: other\nlicense_name: mine"))
    renew_card(fitted)
    assert ModelCard.load(fitted / "README.md").data.to_dict()["license_name"] == "mine"


def test_results_that_the_owner_added_are_kept(measured):
    card = ModelCard.load(measured / "README.md")
    own = EvalResult("text-generation", "cais/mmlu", "MMLU", "acc", 0.5, metric_name="accuracy")
    ours = len(card.data.eval_results)
    card.data.eval_results = [*card.data.eval_results, own]
    card.save(measured / "README.md")
    for _ in range(2):
        renew_card(measured)
        found = ModelCard.load(measured / "README.md").data.eval_results
        assert len(found) == ours + 1 and found[-1].dataset_type == "cais/mmlu"


def test_renewing_twice_changes_nothing(measured):
    once = text_of(measured)
    assert renew_card(measured) and text_of(measured) == once


def test_a_card_of_its_owners_is_left_as_it_is(fitted):
    mine = b"---\nlicense: mit\n---\r\n# Mine\n\nalpha = 7\n"
    (fitted / "README.md").write_bytes(mine)
    edit(fitted, iti_alpha=2.0)
    assert not renew_card(fitted) and (fitted / "README.md").read_bytes() == mine
    (fitted / "README.md").unlink()
    assert not renew_card(fitted) and not (fitted / "README.md").exists()


def test_a_residual_site_is_in_no_standard_deviations(fitted):
    path = fitted / "iti_directions.safetensors"
    directions = ITIDirections.load(path)
    edit(fitted, hidden_size=directions.num_attention_heads * directions.head_dim)
    replace_directions(fitted, replace(directions, site="residual"))
    for name in ("iti_report.json", "labelled_set.jsonl"):
        (fitted / name).unlink()
    text = text_of(write_card(fitted).parent)
    assert not re.search("standard deviation|sigma|attention heads are", text)
    assert "slices of the attention output are shifted by alpha = 1 times their recorded length" in text


def test_no_card_holds_a_path_of_this_machine(measured, fitted_dir, taught_dir):
    for folder in (measured, fitted_dir):
        assert str(taught_dir.parent) not in text_of(folder) and not re.search(
            r"/(tmp|home|root|var)\b", text_of(folder)
        )
    edit(measured, base_model_name_or_path=None)
    renew_card(measured)
    assert str(taught_dir) not in text_of(measured) and "The weights are in this repo." in text_of(measured)


def test_fences_in_prompts_and_answers_do_not_end_those_of_the_card(measured, evaluation):
    nasty = "```python\nx = 1\n```\n````\n# no title\n<b>"
    first = {"prompt": nasty, "shown": nasty, "plain": "a", "steered": f"{nasty}\n</td>"}
    (measured / "evaluation.json").write_text(json.dumps(evaluation | {"examples": [first]}))
    renew_card(measured)
    text = text_of(measured)
    example = part(text, "example")
    fences = re.findall(r"^(`{3,})$", example, re.MULTILINE)
    assert fences.count("`````") == 6 and f"`````\n{nasty}\n`````" in example
    assert ModelCard(text).data.model_name == "taught, steered: returns x"
    code = part(text, "start").split("```python\n")[1].split("\n```\n")[0]
    compile(code, "card", "exec")
    assert f"prompt = {nasty!r}" in code


def estimate(mean: float) -> dict:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": 80, "groups": 80}


def of_a_sentence(evaluation: dict, beyond: bool) -> dict:
    """The evaluation as it would be had the directions been made from a sentence."""
    kept = {"steered": 0.93, BOTH: 1.4, "minus alpha": -0.6, "random 1": 0.05, "random 2": -0.02}
    said = {"text": "Be brief.\n# No title", "place": "after", "error": estimate(0.13), "likeness": -0.25}
    said |= {"kept": {name: estimate(mean) for name, mean in kept.items()}, "beyond_random": beyond}
    said |= {"tokens_saved": 8.0, "prefill_share": 0.25}
    row = {"alpha": 0.0, "target": estimate(0.5), "kl": None, "odds_change": None}
    shares = {"plain": 0.97, "steered": 0.91, TOLD: 0.88}
    rows = [row | {"name": name, "sound": estimate(mean)} for name, mean in shares.items()]
    rows[1] |= {"alpha": 1.0, "kl": 0.21}
    moved = {"prompts": {"steered": {"nll_change": {"mean": math.log(1.05)}}}}
    return evaluation | {"instruction": said, "summary": rows, "sound": "intact", "divergence": moved}


@pytest.mark.parametrize("beyond", [True, False])
def test_a_card_opens_with_the_sentence_and_says_what_is_kept_and_what_it_costs(measured, evaluation, beyond):
    (measured / "evaluation.json").write_text(json.dumps(of_a_sentence(evaluation, beyond)))
    assert renew_card(measured)
    what = " ".join(part(text_of(measured), "what").split())
    nothing = "" if beyond else "**Nothing is kept beyond random directions of equal norm.** "
    assert f"> Be brief. # No title {nothing}Without being told, " in what
    for words in (
        "keeps **0.93 [0.83, 1.03]**", "told after the request", "misclassifies 13% of other answers",
        "1.40 [1.30, 1.50]", "At minus alpha: -0.60 [-0.70, -0.50]", "0.05 [-0.05, 0.15], -0.02 [-0.12, 0.08].",
        "91% of its answers are intact (plain 97%, told 88%)", "1.050 times plain's",
        "0.210 nats a token", "8 tokens a request, 25% of its prompt", "-0.25",
    ):  # fmt: skip
        assert words in what, words


def test_two_prompts_are_shown_those_that_are_answered_differently_first_and_long_answers_are_cut(
    measured, evaluation
):
    answers = [("same", "same"), ("a", "b " * 400), ("c", "d"), ("e", "f")]
    examples = [{"prompt": f"p{i}", "shown": f"p{i}", "plain": a, "steered": b} for i, (a, b) in enumerate(answers)]
    (measured / "evaluation.json").write_text(json.dumps(evaluation | {"examples": examples}))
    assert renew_card(measured)
    example = part(text_of(measured), "example")
    assert re.findall("^p.$", example, re.MULTILINE) == ["p1", "p2"] and "3 of the first 4 held-out prompts" in example
    assert re.findall("^b b .*$", example, re.MULTILINE) == ["b " * 199 + "..."]


def test_what_was_not_measured_has_no_cost_on_the_card(measured):
    assert re.search("^- Cost: .*perplexity", part(text_of(measured), "what"), re.MULTILINE)
    edit(measured, iti_alpha=2.0)
    assert renew_card(measured) and "- Cost: not measured." in part(text_of(measured), "what")


NASTY = [
    "writes a | b", "writes *bold* _text_ `code`", "<script>alert(1)</script> & <b>", "says: 'yes' \"no\"",
    "# says #tags", "---", "{{ x }} %} [a](b)", "- key: value", "schreibt höflich 你好", "says \\n",
]  # fmt: skip


@pytest.mark.parametrize("behaviour", NASTY)
def test_whatever_the_behaviour_is_called_the_card_can_be_read(measured, evaluation, behaviour):
    reworded(measured, behaviour)
    assert renew_card(measured)
    for path in (measured / "README.md", write_card(measured)):
        card = ModelCard.load(path)
        assert card.data.model_name == f"taught, steered: {behaviour}" and len(card.data.eval_results) == 2
        (title,) = re.findall("^# .*$", card.text, re.MULTILINE)
        assert title == f"# taught, steered: {behaviour}"
        tables = part(card.text, "receipt").split("| check |")
        for text, rows in zip(tables, (6, 4), strict=True):
            table = [line for line in text.splitlines() if line.startswith("|") and line != "| | |"]
            assert len(table) == rows and len({line.count("|") for line in table}) == 1


def test_marks_of_parts_in_an_answer_do_not_end_a_part(measured, evaluation):
    one = {"prompt": "p", "shown": "p", "plain": "a", "steered": "x <!-- iti-example: end --> y"}
    (measured / "evaluation.json").write_text(json.dumps(evaluation | {"examples": [one]}))
    renew_card(measured)
    once = text_of(measured)
    renew_card(measured)
    assert text_of(measured) == once


@pytest.mark.parametrize("kind", ["begin", "end"])
@pytest.mark.parametrize("place", ["answer", "prompt", "behaviour", "data"])
def test_marks_of_any_part_in_a_value_leave_the_card_whole(measured, evaluation, kind, place):
    """At the start of a line, where a card's own marks stand."""
    text = "x\n" + "\n".join(f"<!-- iti-{name}: {kind} -->" for name in LIVE)
    if place in ("behaviour", "data"):
        directions = ITIDirections.load(measured / "iti_directions.safetensors")
        told = {{"data": "dataset"}.get(place, place): text}
        replace_directions(measured, replace(directions, provenance=directions.provenance | told))
    else:
        example = {"prompt": "p", "shown": "p", "plain": "a", "steered": "b"}
        example |= {"steered": text} if place == "answer" else {"prompt": text, "shown": text}
        (measured / "evaluation.json").write_text(json.dumps(evaluation | {"examples": [example]}))
    notes = "\n## Notes\n\nBought a cat.\n"
    for written in (text_of(measured), text_of(write_card(measured).parent)):  # over the old card, and anew
        (measured / "README.md").write_text(written + notes)
        assert renew_card(measured)
        once = text_of(measured)
        assert renew_card(measured) and text_of(measured) == once
        for name in LIVE:
            assert len(re.findall(f"^<!-- iti-{name}: begin -->$", once, re.MULTILINE)) == 1
        headings = re.findall("^## (.*)$", once, re.MULTILINE)
        of_the_card = ["Use it", "What the steering does", "How it was made", "Limits and intended use", "Licence"]
        assert headings == [*of_the_card, "Citation", "Notes"]
        assert once.endswith(notes) and "model.iti_alpha = 0.0" in part(once, "start")


def test_marks_in_the_answers_of_an_older_card_are_text_of_their_part(measured):
    text = text_of(measured)
    old = text.replace("<table>", "<!-- iti-receipt: begin -->\n<!-- iti-licence: end -->\n<table>", 1)
    (measured / "README.md").write_text(old)
    assert renew_card(measured) and text_of(measured) == text


@pytest.mark.parametrize("mark", ["<!-- iti-receipt: begin -->", "<!-- iti-receipt: end -->"])
def test_a_mark_without_its_partner_is_named_and_the_card_is_left_alone(measured, mark):
    text = text_of(measured).replace("## Use it", f"{mark}\n## Use it")
    (measured / "README.md").write_text(text)
    line = text[: text.index(f"{mark}\n## Use it")].count("\n") + 1
    with pytest.raises(ValueError, match=f"README.md, line {line}: {mark} has no partner"):
        renew_card(measured)
    assert text_of(measured) == text


UNREADABLE = {
    "begins with a byte-order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "not UTF-8 at byte 0": lambda text: text.encode("utf-16"),
    "not UTF-8 at byte ": lambda text: text.replace("## Use it", "## \u00dcbrigens").encode("latin-1"),
    "its header cannot be read": lambda text: text.replace("license:", "license: [a\n  x: :\nb:", 1).encode(),
    "header cannot be read": lambda text: text.replace("---\n", "---\n- a list\n---\n", 1).encode(),
}


@pytest.mark.parametrize("why", UNREADABLE)
def test_a_card_that_cannot_be_read_is_named_before_anything_is_written(measured, why):
    (measured / "README.md").write_bytes(UNREADABLE[why](text_of(measured)))
    model = ITILlamaForCausalLM.from_pretrained(measured)
    model.iti_alpha = 9.0
    model.set_iti_directions(model.iti_directions.top(2))
    before = {path: path.read_bytes() for path in measured.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=f"fitted/README.md: .*{why}"):
        model.save_pretrained(measured)
    with pytest.raises(ValueError, match=f"fitted/README.md: .*{why}"):
        fit_repo(RepoSettings(measured), [], measured, name="second")
    with pytest.raises(ValueError, match=f"fitted/README.md: .*{why}"):
        renew_card(measured)
    assert {path: path.read_bytes() for path in measured.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    "base", ["[draft]", "llama: 8B", "2024", "a\nlicense: mit", "true", "- x", "{a}", "#", "a\n---\nb"]
)
def test_whatever_the_base_is_called_the_header_says_it(measured, base, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # some are names of repos on the Hub
    card = write_card(measured, base=base)
    data = ModelCard.load(card).data
    assert (data.base_model, data.license) == (base, "other")
    edit(measured, base_model_name_or_path=None)
    assert renew_card(measured) and ModelCard.load(card).data.base_model == base


def test_saving_a_model_over_a_card_renews_it(measured, tmp_path):
    model = ITILlamaForCausalLM.from_pretrained(measured)
    model.iti_alpha, model.iti_top_k = 3.0, 2
    shutil.copytree(measured, tmp_path / "other")
    model.save_pretrained(tmp_path / "other")
    text = text_of(tmp_path / "other")
    assert "2 attention heads are shifted by alpha = 3 standard deviations" in text
    assert "Not measured as it is now (alpha 3, 2 heads, scope all)" in text
    model.save_pretrained(tmp_path / "fresh")
    assert not (tmp_path / "fresh" / "README.md").exists()


def test_a_chat_prompt_is_shown_as_its_writer_wrote_it(measured, evaluation):
    given = {"prompt": "<bos>[user]hi\n[assistant]", "shown": "hi", "plain": "a", "steered": "b"}
    (measured / "evaluation.json").write_text(json.dumps(evaluation | {"examples": [given]}))
    renew_card(measured)
    text = text_of(measured)
    assert "prompt = 'hi'" in text and 'messages = [{"role": "user", "content": prompt}]' in text
    assert "[user]" not in text


def test_a_choice_that_was_not_made_is_said(measured):
    (measured / "sweep.json").write_text(json.dumps({"why": "no point beats plain", "chosen": None}))
    renew_card(measured)
    assert "No strength was chosen: no point beats plain." in part(text_of(measured), "receipt")


def test_a_report_that_does_not_support_the_directions_comes_first_among_the_limits(taught_dir, tmp_path):
    rows = [replace(row, completion=f"y = {7 * i % 5}\n") for i, row in enumerate(two_ways())]
    settings = FitSettings(top_k=2, folds=3, permutations=20, test_share=0.4)
    found = fit_repo(RepoSettings(taught_dir, fitting=settings), rows, tmp_path / "repo")
    limits = part(text_of(tmp_path / "repo"), "limits")
    assert found["supported"] is False and limits.startswith("- **The data do not support these directions")


def failing(folder) -> None:
    """The evaluation of a folder says that utility was not passed."""
    path = folder / "evaluation.json"
    found = json.loads(path.read_text())
    for check in found["checks"]:
        check["passed"] &= check["name"] != "utility"
    path.write_text(json.dumps(found))


def test_the_checks_are_on_the_card_and_one_that_fails_is_in_its_first_lines(measured, evaluation):
    results = part(text_of(measured), "receipt")
    for check in evaluation["checks"]:
        assert f"| {check['name']} | {'pass' if check['passed'] else '**fail**'} | {check['why']} |" in results
    failing(measured)
    renew_card(measured)
    what = part(text_of(measured), "what").splitlines()
    assert what[0].startswith("# ") and "**It did not pass when it was measured: " in what[2] and "utility" in what[2]
    edit(measured, iti_alpha=0.25)  # another strength: not measured, so nothing is said of checks
    renew_card(measured)
    assert "did not pass" not in text_of(measured)


def test_what_failed_a_check_is_pushed_on_demand_only(measured, hub, client):
    edit(measured, base_model_name_or_path="meta/base")
    failing(measured)
    command = """
        del sys.modules["iti_llama"]
        sys.argv = ["iti-llama", *sys.argv[1:]]
        from iti_llama.toolkit.cli import main
        main()
    """
    said = client(command, "push", measured, "me/poor", fails=True)
    assert "me/poor" not in hub.repos
    client(command, "push", measured, "me/poor", "--anyway")
    assert b"did not pass when it was measured" in hub.repos["me/poor"].at("main")[1]["README.md"]
    assert "the steering failed" in said and "utility" in said
