"""The whole way from a labelled file to a measured repo, as a notebook calls it."""

from dataclasses import replace

import pytest
from taught import two_ways

from iti_llama.toolkit.data.labelled_set import write_examples
from iti_llama.toolkit.repo.run_pipeline import RunSettings, run
from iti_llama.toolkit.repo.steered_repo import SteeredRepo


@pytest.fixture(scope="module")
def settings(taught_dir, tmp_path_factory) -> RunSettings:
    folder = tmp_path_factory.mktemp("run")
    data = write_examples(two_ways(), folder / "two_ways.jsonl")
    made_of = {"behaviour": "returns x", "policy": "last", "top_k": 6, "alphas": (1.2,), "checks": False}
    return RunSettings(data, taught_dir, folder / "repo", **made_of)


def test_one_call_gives_a_measured_repo_and_a_second_one_the_same_from_its_files(settings):
    lines, times = [], []
    for _ in range(2):
        result = run(settings, say=lines.append)
        times.append({path.name: path.stat().st_mtime_ns for path in result.repo.glob("*.json")})
    repo = SteeredRepo.open(result.repo)
    assert repo.is_measured and repo.does == "returns x"
    assert repo.alpha == result.sweep["chosen"]["alpha"] == result.evaluation["alpha"] == 1.2
    assert "checks" not in result.evaluation and result.report["top_k"] == 6
    assert times[0] == times[1]
    steps = [line for line in lines if line[1:5] == " of "]
    assert [line[:6] for line in steps] == ["1 of 3", "2 of 3", "3 of 3"] * 2
    assert "fitted before" in steps[3] and "fitted before" not in steps[0]
    assert sum("pairs: " in line or "rows: " in line for line in lines) == 2
    assert len(lines) == len(steps) + 3  # what is to do is said once, before the work


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"scope": "some"}, "iti_scope is 'some'"),
        ({"policy": "middle"}, "policy is 'middle'"),
        ({"alphas": (0.0,)}, "expected positive numbers"),
        ({"test_share": 1.5}, "test_share is 1.5"),
        ({"top_k": 0}, "top_k is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_they_are_made(settings, changes, said):
    with pytest.raises(ValueError, match=said):
        replace(settings, **changes)
