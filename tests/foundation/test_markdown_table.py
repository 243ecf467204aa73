"""Markdown tables, read back by another program."""

from markdown_it import MarkdownIt

from iti_llama.toolkit.foundation.markdown_table import markdown_table


def test_every_cell_comes_back_as_it_was_given():
    heads, rows = ["", "matches a|b"], [["plain", ""], ["steered | told", "50%"]]
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown_table(heads, rows))
    cells = [token.content for token in tokens if token.type == "inline"]
    assert cells == [cell for line in (heads, *rows) for cell in line]
