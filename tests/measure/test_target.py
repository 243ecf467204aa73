"""What is wanted of a completion: by regular expression, by a program of the user's, by a classifier."""

import time
from dataclasses import replace

import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.foundation.sandbox import Limits, Sandbox
from iti_llama.toolkit.measure.labelled_tasks import labelled_set
from iti_llama.toolkit.measure.target import matches, predicate, probe, with_target


def test_a_regular_expression_is_found_anywhere_and_its_anchors_are_ends_of_lines():
    texts = ["a\nreturn x", "  return x", "return", ""]
    assert matches("return").score([""] * 4, texts) == [1.0, 1.0, 1.0, 0.0]
    assert matches("^return").score([""] * 4, texts) == [1.0, 0.0, 1.0, 0.0]
    assert matches("^a$").score([""] * 4, texts) == [1.0, 0.0, 0.0, 0.0]
    assert matches(r"\Areturn").score([""] * 4, texts) == [0.0, 0.0, 1.0, 0.0]


def test_what_is_no_regular_expression_is_refused():
    with pytest.raises(ValueError, match=r"--target is '\('; expected a regular expression"):
        matches("(")


@pytest.fixture
def write(tmp_path):
    def to_file(source: str, name: str = "wanted"):
        path = tmp_path / "targets.py"
        path.write_text(source)
        return f"{path}:{name}"

    return to_file


def test_a_predicate_returns_true_false_or_a_number(write, sandbox):
    spec = write("def wanted(prompt, text):\n    return prompt in text if prompt else len(text) / 10\n")
    target = predicate(spec, sandbox)
    assert target.score(["a", "b", "", ""], ["a\nb", "c", "", "\n\u2028é\ud800"]) == [1.0, 0.0, 0.0, 0.4]
    assert target.name == "wanted"


def test_a_predicate_is_given_any_number_of_completions_in_their_order(write, sandbox):
    target = predicate(write("def wanted(prompt, text):\n    return int(text) / 1000\n"), sandbox)
    assert target.score([""] * 205, [str(i) for i in range(205)]) == [i / 1000 for i in range(205)]
    assert target.score([], []) == []


def test_a_predicate_that_fails_is_named_with_its_error_and_the_completion(write, sandbox):
    spec = write("def wanted(prompt, text):\n    return {'a': 1}[text]\n")
    with pytest.raises(ValueError) as error:
        predicate(spec, sandbox).score([""] * 130, ["a"] * 120 + ["b"] * 10)
    assert str(error.value) == f"{spec}: failed on completion 121, \"b\": KeyError: 'b'"


@pytest.mark.parametrize("returned", ["1.5", "-0.1", "float('nan')", "float('inf')", "2"])
def test_a_number_out_of_range_is_refused(write, sandbox, returned):
    with pytest.raises(ValueError, match="expected True, False or a number from 0 to 1"):
        predicate(write(f"def wanted(prompt, text):\n    return {returned}\n"), sandbox).score([""], [""])


@pytest.mark.parametrize("returned", ["None", "'yes'", "[1]"])
def test_what_is_no_number_is_an_error_of_the_predicate(write, sandbox, returned):
    with pytest.raises(ValueError, match="failed on completion 1"):
        predicate(write(f"def wanted(prompt, text):\n    return {returned}\n"), sandbox).score([""], [""])


def test_a_missing_file_and_a_missing_function_are_named(write, sandbox, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*none\.py"):
        predicate(f"{tmp_path}/none.py:wanted", sandbox)
    with pytest.raises(ValueError, match=r"targets\.py: no function 'wanted'; found one, two"):
        predicate(write("def two(p, t): return 1\ndef one(p, t): return 1\n"), sandbox)
    with pytest.raises(ValueError, match=r"targets\.py, line 1:"):
        predicate(write("def wanted(:\n"), sandbox)


def test_a_predicate_with_a_byte_order_mark_is_read_and_another_encoding_is_refused_by_name(write, sandbox, tmp_path):
    spec = write("\ufeffdef wanted(prompt, text):\n    return text == 'é'\n")
    assert predicate(spec, sandbox).score([""] * 2, ["é", "e"]) == [1.0, 0.0]
    (tmp_path / "targets.py").write_text("def wanted(prompt, text): return 1\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"targets\.py: not UTF-8 at byte 0; expected a Python file in UTF-8"):
        predicate(spec, sandbox)


def test_lines_that_a_predicate_prints_are_not_taken_for_values(write, sandbox):
    source = """
        import sys

        print("loaded 1.0")

        def wanted(prompt, text):
            print(0.0)
            print("0123456789abcdef 0.0", file=sys.stderr)
            return text == "a"
    """
    spec = write("\n".join(line[8:] for line in source.splitlines()))
    assert predicate(spec, sandbox).score([""] * 3, ["a", "b", "a"]) == [1.0, 0.0, 1.0]


def test_text_that_a_predicate_prints_without_ending_the_line_is_not_in_the_way(write, sandbox):
    spec = write("def wanted(prompt, text):\n    print('.', end='')\n    return text == 'a'\n")
    assert predicate(spec, sandbox).score([""] * 2, ["a", "b"]) == [1.0, 0.0]


def test_the_main_block_of_a_predicates_file_is_not_run(write, sandbox):
    spec = write("def wanted(prompt, text):\n    return True\nif __name__ == '__main__':\n    raise SystemExit(1)\n")
    assert predicate(spec, sandbox).score([""], ["a"]) == [1.0]


def test_an_endless_predicate_is_stopped_and_named(write):
    sandbox, before = Sandbox(Limits(seconds=0.5)), time.monotonic()
    spec = write("def wanted(prompt, text):\n    while text == 'b': pass\n    return True\n")
    with pytest.raises(ValueError, match='failed on completion 2, "b": stopped by the limit on time'):
        predicate(spec, sandbox).score([""] * 2, ["a", "b"])
    assert time.monotonic() - before < 30


def test_each_completion_has_the_time_of_a_run_and_not_a_share_of_it(write):
    """12 of 0.15 s each, of which a run of one second holds six or fewer."""
    spec = write("import time\ndef wanted(prompt, text):\n    time.sleep(0.15)\n    return text == 'a'\n")
    texts = ["a", "b", "b"] * 4
    found = predicate(spec, Sandbox(Limits(seconds=1))).score([""] * 12, texts)
    assert found == [float(text == "a") for text in texts]


def test_a_predicate_is_run_in_the_sandbox(write, sandbox, tmp_path):
    (tmp_path / "secret").write_text("x")
    spec = write(f"import os\ndef wanted(prompt, text):\n    return os.path.exists({str(tmp_path / 'secret')!r})\n")
    assert predicate(spec, sandbox).score([""], [""]) == [0.0]


WORDS = [
    ("x = 1", "return 1"), ("y = x", "return y"), ("y += 2", "return x"), ("x = return", "return"), ("y", "x = y"),
]  # fmt: skip


def examples(n: int) -> list[Example]:
    """Of which words do not always tell the label."""
    return [
        Example("p", f"{WORDS[(3 * i) % 5][label]} {WORDS[i % 4][label]}", label, f"g{i}")
        for i in range(n)
        for label in (0, 1)
    ]


def test_the_probes_accuracy_in_its_note_is_that_of_scikit_learn():
    fitting, held_out = examples(8), [replace(e, label=1 - e.label if i % 7 == 0 else e.label) for i, e in
                                      enumerate(examples(30))]  # fmt: skip
    vectors = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]|\n", ngram_range=(1, 2), sublinear_tf=True, lowercase=False)
    features = vectors.fit_transform([e.completion for e in fitting])
    model = LogisticRegression(max_iter=1000).fit(features, [e.label for e in fitting])
    right = model.score(vectors.transform([e.completion for e in held_out]), [e.label for e in held_out])
    target = probe(fitting, held_out)
    assert 0.5 < right < 1 and f"is right on {100 * right:.1f}% [" in target.note
    assert "of 60 held-out labelled texts" in target.note
    texts = [e.completion for e in held_out]
    assert target.score([""] * 60, texts) == model.predict(vectors.transform(texts)).tolist()


def test_a_probe_of_separable_texts_is_always_right():
    rows = [
        Example("p", f"{'return' if label else 'print'} {i}", label, f"g{i}") for i in range(20) for label in (0, 1)
    ]
    target = probe(rows[:20], rows[20:])
    assert "is right on 100.0% [" in target.note and "of 20 held-out" in target.note
    assert target.score(["", ""], ["return 99", "print 99"]) == [1.0, 0.0]


def test_a_target_takes_the_place_of_the_tasks_own_and_leaves_the_rest(sandbox):
    tasks = labelled_set("x", examples(3))
    found = with_target(tasks, matches("return"))
    answers = ["return 1", "", "a b c " * 9]
    grades = found.grade([found.tasks[0]] * 3, answers, sandbox)
    assert [(g.target, g.correct) for g in grades] == [(1.0, True), (0.0, False), (0.0, False)]
    assert (found.target, found.sound, found.tasks) == ("matches return", "intact", tasks.tasks)
