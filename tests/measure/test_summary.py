"""The four rows of a card: which columns there are, and that they survive JSON."""

import json

import pytest

from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.summary import Summary, summary_table


SHARE = estimate([1, 0, 1, 1], list("abcd"))


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")] for line in table.splitlines()]


def rows(sound=SHARE, odds=None):
    return [Summary("plain", 0.0, sound, SHARE, None, odds), Summary("steered", 1.5, sound, SHARE, 0.12349, odds)]


def test_a_table_has_a_column_for_sound_only_where_there_is_one():
    with_sound, without = (
        cells(summary_table(rows(), "short", "intact")),
        cells(summary_table(rows(None), "short", "")),
    )
    assert with_sound[0] == ["", "intact", "short", "KL from plain, nats a token", "n"]
    assert without[0] == ["", "short", "KL from plain, nats a token", "n"]
    assert with_sound[2] == ["plain (alpha 0)", SHARE.percent(), SHARE.percent(), "", "4"]
    assert without[3] == ["steered (alpha 1.5)", SHARE.percent(), "0.123", "4"]
    for table in (with_sound, without):
        assert len({len(line) for line in table}) == 1 and set(table[1]) == {"---"}


def test_of_pairs_there_is_the_change_of_log_odds_on_plain():
    odds = estimate([0.5, -1, 2.0, 0.1], list("abcd"))
    table = cells(summary_table(rows(None, odds), "prefers label 1", ""))
    assert table[0][2] == "change of its log-odds, nats"
    assert (table[2][2], table[3][2]) == ("", odds.plain())


@pytest.mark.parametrize("target", ["matches a|b", "matches |", "matches \\|x"])
def test_a_target_with_a_bar_does_not_make_columns(target):
    table = cells(summary_table(rows(), target, "intact"))
    assert {len(line) for line in table} == {5}


def test_rows_survive_json_but_for_further_digits_of_the_divergence():
    for row in rows(odds=SHARE) + rows(None):
        again = Summary.from_dict(json.loads(json.dumps(row.to_dict())))
        assert again.to_dict() == row.to_dict() and (again.sound, again.odds_change) == (row.sound, row.odds_change)
    assert rows()[1].to_dict()["kl"] == 0.123
