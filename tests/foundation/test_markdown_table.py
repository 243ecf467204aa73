"""Markdown tables, read back."""

import re

from iti_llama.toolkit.foundation.markdown_table import markdown_table


def test_every_cell_comes_back_as_it_was_given():
    heads, rows = ["", "matches a|b"], [["plain", ""], ["steered | told", "50%"]]
    lines = markdown_table(heads, rows).splitlines()
    assert lines.pop(1) == "|---|---|"
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines]
    assert [[cell.strip().replace(r"\|", "|") for cell in line] for line in cells] == [heads, *rows]
