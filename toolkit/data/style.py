"""The style of a Python program, plain or idiomatic, from its syntax tree."""

import ast

from .run_programs import parse


def style_of(program: str) -> str:
    """The style of a program's functions: "plain" if a loop statement or an accumulator is used, "idiomatic" if not.

    Returns "unparsable" for text that is not Python, "neither" for a function that returns nothing.
    """
    try:
        tree = parse(program)
    except ValueError:
        return "unparsable"
    nodes = list(ast.walk(tree))
    if any(isinstance(node, (ast.For, ast.While, ast.AugAssign)) for node in nodes):
        return "plain"
    return "idiomatic" if any(isinstance(node, ast.Return) and node.value for node in nodes) else "neither"
