"""NeoCoder: reading its files, running its solutions, labelling them."""

import neocoder_files
import pytest

from iti_llama.toolkit.neocoder.label_solutions import build_from_humans, build_from_samples


def by_title(problem):
    return f"# {problem.title}\n"


def test_novel_and_ordinary_solutions_are_paired_within_problems(problems, sandbox):
    built = build_from_humans(problems, sandbox, by_title)
    assert dict(built.counts)["human solutions"] == 22
    assert dict(built.counts)["in Python 3, without duplicates"] == 20
    assert dict(built.counts)["of them, pass the samples"] == 18
    labels = {(e.group, e.completion.strip()): e.label for e in built.examples}
    assert all(text in neocoder_files.DOUBLE["rare"] for (g, text), label in labels.items() if g == "1A" and label)
    assert all(
        text in neocoder_files.DOUBLE["common"] for (g, text), label in labels.items() if g == "1A" and not label
    )
    for group in {e.group for e in built.examples}:
        own = [e for e in built.examples if e.group == group]
        assert sum(e.label for e in own) * 2 == len(own) > 0
        for zero, one in zip(own[::2], own[1::2], strict=True):
            assert (
                max(len(zero.completion), len(one.completion))
                <= 1.25 * min(len(zero.completion), len(one.completion)) + 1
            )
    # fewer are rare when no other may use the technique, more when three may
    sizes = [len(build_from_humans(problems, sandbox, by_title, rare=rare).examples) for rare in (0, 1)]
    assert sizes[0] <= sizes[1]


def test_machine_solutions_are_labelled_by_their_share_of_new_techniques(problems, sandbox):
    plain = neocoder_files.DOUBLE["common"][0]
    new = "from heapq import heappush\nfor _ in range(int(input())):\n    h = []\n    heappush(h, 2 * int(input()))"
    new += "\n    print(h[0])"
    samples = [
        {"problem_id": "1A", "prompt": "p", "completion": f"```python\n{plain}\n```"},
        {"problem_id": "1A", "prompt": "p", "completion": f"```python\n{plain}\n```"},  # a duplicate
        {"problem_id": "1A", "prompt": "p", "completion": new},
        {"problem_id": "1A", "prompt": "p", "completion": "print(1)"},  # wrong
        {"problem_id": "2B", "prompt": "p", "completion": neocoder_files.PARITY["rare"][1]},
    ]
    built = build_from_samples(problems, samples, sandbox)
    assert [(e.group, e.label) for e in built.examples] == [("1A", 0), ("1A", 1), ("2B", 0)]
    assert built.examples[1].meta["new_ratio"] == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="row 1: problem_id is 'x'"):
        build_from_samples(problems, [{"problem_id": "x", "completion": ""}], sandbox)
