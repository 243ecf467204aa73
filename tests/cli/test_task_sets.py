"""Which tasks and target the words of a command stand for."""

import json
import shutil

import pytest
from reference import tiny_tokenizer
from taught import TEMPLATE

from iti_llama.toolkit.cli.task_sets import find_tasks
from iti_llama.toolkit.data.labelled_set import write_examples
from iti_llama.toolkit.foundation.package import ROOT
from iti_llama.toolkit.measure.keep_labelled_set import read_parts
from iti_llama.toolkit.measure.settings import TaskRequest


@pytest.fixture
def resolve(fitted_dir, sandbox):
    def call(part="test", tokenizer=None, **fields):
        request = TaskRequest(**{"folder": str(fitted_dir)} | fields)
        return find_tasks(request, part, tokenizer or tiny_tokenizer(), sandbox, lambda step, rows=None: None)

    return call


@pytest.fixture
def write(tmp_path):
    def to_file(*rows):
        (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / "tasks.jsonl")

    return to_file


def test_by_default_a_fitted_repo_is_measured_on_its_held_out_pairs(resolve, fitted_dir):
    names = {}
    for part in ("validation", "test"):
        found = resolve(part)
        assert (found.name, found.target, found.pairs, found.asked) == (
            f"held-out:{part}",
            "prefers label 1",
            True,
            None,
        )
        names[part] = {task.group for task in found.tasks}
        assert names[part] == {example.group for example in read_parts(fitted_dir, part)}
    assert not names["validation"] & names["test"]
    assert not (names["validation"] | names["test"]) & {example.group for example in read_parts(fitted_dir, "fit")}


def test_by_default_the_bundled_model_is_measured_on_its_corpus(resolve):
    found = resolve("validation", folder=str(ROOT), n=5)
    assert (found.name, found.target, len(found)) == ("corpus:validation", "idiomatic", 5)


@pytest.mark.parametrize("folder", ["", "another"])
def test_another_repo_has_no_tasks_of_its_own(resolve, fitted_dir, tmp_path, folder):
    if folder:
        shutil.copytree(fitted_dir, tmp_path / folder)
        (tmp_path / folder / "labelled_set.jsonl").unlink()
        folder = str(tmp_path / folder)
    with pytest.raises(
        ValueError, match=r"no --tasks, and the repo keeps no labelled_set\.jsonl .*expected corpus:PART"
    ):
        resolve(folder=folder)
    with pytest.raises(ValueError, match=r"--tasks is 'held-out:test', but the repo keeps no labelled_set\.jsonl"):
        resolve(folder=folder, tasks="held-out:test")
    with pytest.raises(ValueError, match=r"--target is 'probe', but the repo keeps no labelled_set\.jsonl"):
        resolve(folder=folder, tasks="corpus:test", target="probe")


@pytest.mark.parametrize("tasks", ["corpus:train", "held-out:fit", "neocoder:x", "nonsense", "corpus"])
def test_tasks_that_there_are_not_are_named(resolve, tasks):
    with pytest.raises(ValueError, match=f"--tasks is '{tasks}'; expected corpus:PART"):
        resolve(tasks=tasks)


def test_labels_need_labelled_rows(resolve, write):
    path = write({"prompt": "p"})
    with pytest.raises(ValueError, match=r"--target is 'labels', but .*tasks\.jsonl has no labels"):
        resolve(tasks=path, target="labels")
    with pytest.raises(ValueError, match="--target is 'labels', but corpus:test is not a labelled set"):
        resolve(tasks="corpus:test", target="labels")


def test_a_labelled_file_is_pairs_by_default_and_prompts_with_another_target(resolve, fitted_dir, tmp_path):
    path = str(write_examples(read_parts(fitted_dir, "test"), tmp_path / "mine.jsonl"))
    pairs = resolve(tasks=path)
    assert pairs.pairs and pairs.name == "mine" and pairs.tasks == resolve(tasks=path, target="labels").tasks
    prompts = resolve(tasks=path, target="^return")
    assert not prompts.pairs and (prompts.target, prompts.sound) == ("matches ^return", "intact")
    assert [t.prompt for t in prompts.tasks] == [t.prompt for t in pairs.tasks]


def test_prompts_without_tests_are_measured_by_a_target(resolve, write, sandbox):
    found = resolve(tasks=write({"prompt": "p"}, {"prompt": "q"}), target="^return")
    grades = found.grade(found.tasks, ["return 1", "x"], sandbox)
    assert [(g.target, g.correct) for g in grades] == [(1.0, True), (0.0, True)]


def test_a_predicate_is_a_file_and_a_function_and_all_else_a_pattern(resolve, tmp_path):
    (tmp_path / "t.py").write_text("def is_short(prompt, text):\n    return len(text) < 3\n")
    found = resolve(target=f"{tmp_path}/t.py:is_short")
    assert found.target == "is short" and [g.target for g in found.grade(found.tasks[:2], ["a", "abc"], None)] == [
        1,
        0,
    ]
    assert resolve(target="a.py:1").target == "matches a.py:1"


def test_a_probe_is_fitted_on_what_was_fitted_on_and_says_how_good_it_is(resolve):
    found = resolve(target="probe")
    assert found.target == "taken for label 1" and "of 32 held-out labelled texts" in found.note
    assert [g.target for g in found.grade(found.tasks[:2], ["return x\n", "y = 1\n"], None)] == [1, 0]


def test_a_header_is_asked_and_without_one_nothing_is(resolve):
    for target in (None, "^return"):
        assert resolve(target=target).asked is None
        found = resolve(target=target, header="# Be brief.")
        assert found.asked(found.tasks[0]) == f"# Be brief.\n{found.tasks[0].prompt}"
    corpus = resolve(tasks="corpus:test", n=2, header="# Be brief.")
    assert corpus.asked(corpus.tasks[0]) == f"# Be brief.\n{corpus.tasks[0].prompt}"


def test_a_header_goes_inside_the_chat_template(resolve, write):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    found = resolve(tasks=write({"prompt": "what is x"}), target="x", header="Be brief.", tokenizer=tokenizer)
    assert found.asked(found.tasks[0]) == "<bos>[user]Be brief.\nwhat is x\n[assistant]"


def test_a_file_is_asked_raw_or_after_a_system_message(resolve, write):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    path = write({"prompt": "what is x"})
    raw = resolve(tasks=path, target="x", raw=True, tokenizer=tokenizer)
    assert raw.tasks[0].prompt == "what is x"
    told = resolve(tasks=path, target="x", system="Be brief.", tokenizer=tokenizer)
    assert told.tasks[0].prompt == "<bos>[system]Be brief.\n[user]what is x\n[assistant]"


@pytest.mark.parametrize("asked", [{"raw": True}, {"system": "Be brief."}])
@pytest.mark.parametrize("tasks", [None, "corpus:test"])
def test_prompts_that_are_made_already_are_not_asked_otherwise(resolve, tasks, asked):
    with pytest.raises(ValueError, match=f"--{next(iter(asked))} is for a file of --tasks"):
        resolve(tasks=tasks, **asked)


def test_the_number_of_tasks_takes_their_texts_along(resolve):
    found = resolve(n=3)
    assert len(found) == 3 and [t.prompt for t in found.texts["label 0 texts"]] == [t.prompt for t in found.tasks]
    assert resolve(max_new_tokens=7, target="x").max_new_tokens == 7
