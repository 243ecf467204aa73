"""What a fit found, as JSON, as a table and as figures: the same numbers everywhere."""

import json

import numpy as np
import pytest
import torch

from iti_llama.toolkit.data.labelled_set import Example
from iti_llama.toolkit.fit.figures import figures
from iti_llama.toolkit.fit.fit_directions import fit
from iti_llama.toolkit.fit.positions import Policy
from iti_llama.toolkit.fit.record_activations import Activations
from iti_llama.toolkit.fit.report import report, verdict, write_report
from iti_llama.toolkit.fit.report_table import report_table
from iti_llama.toolkit.fit.settings import FitSettings


@pytest.fixture(scope="module")
def found():
    rng = np.random.default_rng(0)
    examples = [Example(f"p{i // 2}", "c", i % 2, f"g{i // 2}") for i in range(80)]
    heads = torch.from_numpy(rng.normal(size=(80, 2, 3, 4))).float()
    heads[:, 1, 2, 0] += 5 * torch.tensor([e.label for e in examples])
    activations = Activations(heads, torch.from_numpy(rng.normal(size=(80, 2, 8))).float())
    settings = FitSettings(top_k=2, folds=4, permutations=19)
    return fit(activations, examples, Policy("last"), settings), examples, activations


def test_the_report_holds_what_the_table_says(found, tmp_path):
    fitted, examples, activations = found
    told = report(fitted, examples, Policy("last"), activations, "tiny", {"left_out": 3})
    path = write_report(told, tmp_path / "iti_report.json")
    assert json.loads(path.read_text()) == json.loads(json.dumps(told)) and told["left_out"] == 3
    assert (told["heads"][0]["layer"], told["heads"][0]["head"]) == (1, 2) and told["supported"] is True
    table = report_table(told)
    assert "| top head | layer 1, head 2 |" in table and f"{told['heads'][0]['auc']:.3f}" in table
    assert told["heads"][0]["agreement"] > 0.5
    assert f"{told['heads'][0]['agreement']:.2f} in the top head" in table
    assert verdict(fitted) == told["verdict"] and "beyond chance" in verdict(fitted)


def test_figures_of_the_same_fit_have_the_same_bytes(found, tmp_path):
    fitted, examples, activations = found
    first = figures(fitted, examples, activations, tmp_path / "a")
    second = figures(fitted, examples, activations, tmp_path / "b")
    assert {path.name for path in first} == {"head_auc.png", "projections.png", "layers.png", "null.png"}
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(
    "fields", [{"method": "x"}, {"rank_by": "x"}, {"top_k": 0}, {"folds": 1}, {"test_share": 1.0}]
)
def test_settings_that_cannot_be_are_named(fields):
    with pytest.raises(ValueError, match=f"{next(iter(fields))} is "):
        FitSettings(**fields)
