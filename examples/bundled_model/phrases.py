"""The wordings of many people, in `phrases.json`, and the names that they give to functions and arguments.

`phrases.json` holds lists of wordings, by meaning. For filters, `after` comes right after the noun, `are` after
"that are" or "is", and `rest_*` names what is *not* kept. Aggregates are whole sentences with `{}` for the items.
"""

import builtins
import json
import keyword
import random
from collections.abc import Collection
from functools import cache
from pathlib import Path


PHRASES = json.loads(Path(__file__).with_name("phrases.json").read_text(encoding="utf-8"))

RESERVED = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "result", "math", "string"}


@cache
def strings(*path: str) -> tuple[str, ...]:
    """The wordings at a place of `phrases.json`. Raises `KeyError` if it has no such place."""
    found = PHRASES
    for key in path:
        found = found[key]
    return tuple(found)


@cache
def pairs(*path: str) -> tuple[tuple[str, str], ...]:
    """The (plural, singular) pairs at a place of `phrases.json`."""
    return tuple((many, one) for many, one in strings(*path))


WORDS = tuple(word for word in strings("vocabulary") if word not in RESERVED)


def _nonsense(rng: random.Random) -> str:
    return "".join(rng.choice("bcdfghjklmnprstvwz") + rng.choice("aeiou") for _ in range(rng.randint(1, 3)))


def made_up_name(rng: random.Random, taken: Collection[str] = ()) -> str:
    """An identifier that cannot be guessed, so that it has to be copied: words, pairs of words, letters, nonsense."""
    while True:
        first, second = rng.choice(WORDS), rng.choice(WORDS)
        draw = rng.random()
        if draw < 0.3:
            name = first
        elif draw < 0.5:
            name = f"{first}_{second}"
        elif draw < 0.58:
            name = first + second.capitalize()
        elif draw < 0.66:
            name = rng.choice(("my_", "the_", "all_", "list_of_", "input_", "some_", "new_", "cur_")) + first
        elif draw < 0.72:
            name = first + rng.choice(("_list", "s", "_in", "1", "2", "_data", "_arr", "List"))
        elif draw < 0.82:
            name = rng.choice("abcdefghjkmnopqrstuvwxyz") + rng.choice(("", "", "s", "1", "2"))
        elif draw < 0.9:
            name = first[: rng.randint(2, 4)]
        else:
            name = _nonsense(rng)
        if name not in RESERVED and name not in taken:
            return name
