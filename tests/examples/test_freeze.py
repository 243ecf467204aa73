"""What the package keeps of the bundled model's corpus is what the generator writes."""

from iti_llama.examples.bundled_model.corpus import HEADERS, split_of
from iti_llama.examples.bundled_model.freeze import frozen_files
from iti_llama.examples.bundled_model.pairs import style_pairs
from iti_llama.toolkit.data.style import style_of
from iti_llama.toolkit.measure.bundled_tasks import FOLDER, corpus_set, frozen_tasks, labelled_pairs


def copied(value: object) -> object:
    return value.copy() if isinstance(value, (list, dict)) else value


def test_the_committed_files_are_those_that_the_generator_writes():
    files = frozen_files()
    assert {path.name for path in FOLDER.iterdir()} == files.keys()
    for name, text in files.items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, f"{name}: `make freeze` writes another"


def test_every_solution_runs_gives_the_expected_values_and_is_of_its_style():
    for task in (*frozen_tasks("classic"), *frozen_tasks("test"), *frozen_tasks("validation")):
        assert task.solutions.keys() == {"plain", "idiomatic"} and len(task.tests) > 3
        for style, body in task.solutions.items():
            program, namespace = task.program(body), {}
            assert style_of(program) == style, program
            exec(program, namespace)
            for arguments, expected in task.tests:
                value = namespace[task.name](*map(copied, arguments))
                assert value == expected and type(value) is type(expected), (program, arguments)


def test_tasks_are_of_their_split_and_pairs_of_the_training_split():
    for split in ("test", "validation"):
        tasks = corpus_set(split, 300).tasks
        assert {split_of(task.group) for task in tasks} == {split}
        assert len({task.prompt for task in tasks}) == 300
    for behaviour in ("idiomatic", "commented"):
        assert {split_of(row.group) for row in labelled_pairs(behaviour)} == {"train"}


def test_frozen_pairs_are_the_generator_s_rows_and_ask_for_their_style():
    rows = labelled_pairs("idiomatic", 30)
    assert rows == style_pairs(30)
    for row in rows:
        assert row.prompt.startswith(HEADERS[("plain", "idiomatic")[row.label]])
