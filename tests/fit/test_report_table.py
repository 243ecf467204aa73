"""The table of a fit: every number of the report in its place."""

import pytest

from iti_llama.toolkit.fit.report_table import report_table


@pytest.fixture
def found():
    return {
        "verdict": "As good as said.",
        "policy": "last",
        "top_k": 3,
        "data": {
            "fitting": {"rows": 80, "groups": 20, "label 1": 41, "label 0": 39},
            "test": {"rows": 16, "groups": 4, "label 1": 7, "label 0": 9},
        },
        "heads": [{"layer": 5, "head": 2, "auc": 0.91251, "accuracy": 0.876}, {"layer": 1, "head": 0, "auc": 0.8}],
        "all_heads_auc": [[0.5] * 4] * 6,
        "null": {"draws": [0.5] * 40, "quantile_95": 0.6123, "p_top_head": 0.0244, "p_last_head": 0.2195},
        "stability": {"value": 0.666},
        "top_head_test_accuracy": {"mean": 0.875, "low": 0.7, "high": 0.98, "n": 16, "groups": 4},
        "layers": {"best": 1, "auc": [0.5, 0.7777], "test_accuracy": [0.5, 0.625]},
        "text_baseline_auc": 0.5309,
    }


def cells(table: str) -> dict[str, str]:
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return dict(rows)


def test_every_row_holds_the_number_of_the_report(found):
    table = report_table(found)
    assert table.startswith("| fit | |\n|---|---|\n| training samples |")
    assert cells(table) == {
        "training samples": "80 (41 of label 1) in 20 groups",
        "test samples, no group shared with training": "16 (7 of label 1) in 4 groups",
        "activations": "input of o_proj, last",
        "heads": "3 of 24",
        "top head": "layer 5, head 2",
        "its AUC, out of fold": "0.913",
        "best AUC of all heads under permuted labels, 95th percentile": "0.612 (40 permutations; p = 0.024)",
        "p of the last head kept": "0.220",
        "overlap of the top heads between folds (Jaccard)": "0.67",
        "validation accuracy of the top head, out of fold": "87.6%",
        "test accuracy of the top head": "87.5% [70.0, 98.0], n = 16",
        "best single layer (residual stream)": "1: AUC 0.778, test accuracy 62.5%",
        "AUC of the text alone (TF-IDF, length)": "0.531",
    }


def test_what_was_left_out_is_called_so(found):
    found["null"] = {"draws": [], "quantile_95": None, "p_top_head": None, "p_last_head": None}
    left_out = [name for name, value in cells(report_table(found)).items() if value == "not computed"]
    assert left_out == [
        "best AUC of all heads under permuted labels, 95th percentile",
        "p of the last head kept",
    ]
