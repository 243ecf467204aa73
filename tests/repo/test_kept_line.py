"""What a run says of a sentence at its end: what is kept, and that nothing is where that is so."""

import pytest

from iti_llama.toolkit.repo.kept_line import kept_line


@pytest.mark.parametrize("beyond", [True, False])
def test_what_random_directions_do_as_well_is_not_kept(beyond):
    kept = {"steered": {"mean": 0.93, "low": 0.83, "high": 1.03, "n": 80, "groups": 80}}
    line = kept_line({"instruction": {"kept": kept, "beyond_random": beyond}})
    assert "0.93 [0.83, 1.03]" in line and ("nothing is kept beyond random directions" in line) != beyond
