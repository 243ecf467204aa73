"""The document of the demo's answers, word for word."""

from iti_llama.toolkit.cli.demo import before_and_after


def answer(program: str, style: str, correct: bool) -> dict:
    return {"program": program, "style": style, "correct": correct}


def row(asked: str, origin: str, alpha: float, plain: dict, steered: dict) -> dict:
    return {"asked": asked, "origin": origin, "tests": 4, "alpha": alpha, "plain": plain, "steered": steered}


GOOD = answer("def f(x):\n    return all(x)\n\n", "idiomatic", True)
BAD = answer("def f(x):\n    return 1", "neither", False)


def test_one_answer_gives_this_document():
    assert before_and_after([row("Check it.", "held out from training", 0.25, BAD, GOOD)]) == (
        "# Before and after\n"
        "\n"
        "Made by `iti-llama demo --n 1 --markdown FILE`: the demo's own prompt, then the first 0 held-out tasks by "
        "index, good and bad alike. Greedy.\n"
        "\n"
        "## Check it.\n"
        "\n"
        "Held out from training; 4 tests.\n"
        "\n"
        "Plain (alpha 0): neither, **fails** its tests.\n"
        "\n"
        "```python\n"
        "def f(x):\n"
        "    return 1\n"
        "```\n"
        "\n"
        "Steered (alpha 0.25): idiomatic, passes its tests.\n"
        "\n"
        "```python\n"
        "def f(x):\n"
        "    return all(x)\n"
        "```\n"
    )


def test_answers_keep_their_order_and_none_is_left_out():
    rows = [row(f"Task {i}.", "here", 1.0, *(GOOD, BAD)[:: 1 if i % 2 else -1]) for i in range(5)]
    text = before_and_after(rows)
    assert "--n 5 --markdown" in text and "the first 4 held-out tasks" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [f"## Task {i}." for i in range(5)]
    assert text.count("**fails**") == text.count(", passes") == 5
    assert text.count("```") == 2 * text.count("```python") == 20
