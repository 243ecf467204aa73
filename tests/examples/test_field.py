"""What others measure: the rules that see an instruction of IFEval, and the table and figure of what was measured."""

import json
from dataclasses import asdict

import pytest

from iti_llama.examples.field import checkers, measure_reach
from iti_llama.examples.field.measure_field import BEHAVIOURS, Instruction, draw, table
from iti_llama.toolkit.foundation.intervals import estimate
from iti_llama.toolkit.measure.summary import BOTH, TOLD


SEEN = {
    "lowercase": ("use a towel, or 2.", "use a Towel."),
    "capitals": ("USE A TOWEL, OR 2.", "Use a TOWEL."),
    "no_comma": ("Use a towel.", "Use a towel, then dry it."),
    "highlights": ("Use a *dry towel* here.", "It is 2 * 3 * 4.\n* Use a towel.\n* Dry it."),
    "json_format": ('```json\n{"use": ["a towel"]}\n```', '{"use": "a towel"'),
    "not_english": ("Das Handtuch ist auf dem Tisch im Bad.", "The towel is on the table in the bath."),
    "bullets": ("Do this:\n* Wash it.\n* Dry it.", "* Wash it, then dry it."),
    "refuses": ("I\u2019m sorry, but I can't wash it.", "You can wash it in cold water."),
}


@pytest.mark.parametrize("name", SEEN)
def test_each_rule_sees_what_it_is_for(name):
    does, does_not = SEEN[name]
    rule = getattr(checkers, name)
    assert rule("", does) and not rule("", does_not)
    assert not rule("", "")


def test_every_instruction_has_a_rule():
    assert {b.name for b in BEHAVIOURS if isinstance(b, Instruction)} < SEEN.keys()


def test_what_is_measured_is_a_row_of_the_table_and_a_part_of_the_figure(tmp_path):
    def share(count):
        return asdict(estimate([1.0] * count + [0.0] * (10 - count), list(map(str, range(10)))))

    counts = {"plain": 1, TOLD: 6, "steered": 7, BOTH: 9, "minus alpha": 0}
    counts |= {"random 1": 1, "random 2": 3, "random 3": 2}
    tried = [
        {"alpha": a, "share": s, "kl": k, "inside": i} for a, s, k, i in ((0.0, 0.1, 0, True), (0.9, 0.7, 1, False))
    ]
    said = {"alpha": 0.9, "tried": tried, "n": 10, "beyond_random": True, "kl": share(2), "mmlu": {"change": share(1)}}
    said["rows"] = {name: {"target": share(count), "correct": share(10)} for name, count in counts.items()}
    for behaviour in (BEHAVIOURS[0], BEHAVIOURS[-1]):
        (tmp_path / f"{behaviour.name}.json").write_text(json.dumps(said))
    heads, _, instruction, pair = table(tmp_path).splitlines()
    assert instruction.count("|") == pair.count("|") == heads.count("|")
    cells = dict(zip(heads.split(" | "), instruction.split(" | "), strict=True))
    assert [cells[name] for name in ("plain", "told", "both", "random")] == ["10%", "60%", "90%", "10% to 30%"]
    assert cells["steered"].startswith("70.0% [") and cells["intact"] == "100/100/100%"
    draw(tmp_path, tmp_path / "field.png")
    assert (tmp_path / "field.png").stat().st_size > 1000


def test_kinds_and_turns_are_rows_and_pairs_are_dots(tmp_path):
    def shares(count):
        one = asdict(estimate([1.0] * count + [0.0] * (10 - count), list(map(str, range(10)))))
        return {"brief": one, "intact": one}

    row = {"plain": shares(1), "steered": shares(8)}
    measured = {"kinds": {"code": row}, "turns": [row, row], "few": {"4": [0.2, 0.4], "96": [0.8, 0.8]}}
    heads, _, *rows = measure_reach.table(measured).splitlines()
    assert [line.split(" | ")[0] for line in rows] == [
        "| code",
        "| turn 1 of a conversation",
        "| turn 2 of a conversation",
    ]
    assert all(line.count("|") == heads.count("|") and "80.0% [" in line and "10 / 80%" in line for line in rows)
    measure_reach.draw(measured, tmp_path / "few.png")
    assert (tmp_path / "few.png").stat().st_size > 1000
