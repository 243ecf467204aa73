"""Check that two directions files agree: heads exactly, numbers as far as the arithmetic of different CPUs allows."""

import sys
from pathlib import Path

import torch

from iti_llama import ITIDirections


TOLERANCE = 1e-6


def difference(first: ITIDirections, second: ITIDirections) -> float:
    """The largest difference between the numbers of two files, relative for numbers above 1.

    Raises:
        ValueError: if they do not name the same heads in the same order, or the same provenance.
    """
    if not torch.equal(first.heads, second.heads):
        raise ValueError(f"the heads differ: {first.heads.tolist()} and {second.heads.tolist()}")
    if _made_from(first) != _made_from(second):
        raise ValueError(f"the provenance differs: {first.provenance} and {second.provenance}")
    pairs = [(getattr(first, name), getattr(second, name)) for name in ("directions", "scales", "scores")]
    return max(float(((a - b).abs() / b.abs().clamp_min(1)).max()) for a, b in pairs)


def _made_from(directions: ITIDirections) -> dict[str, str]:
    return {key: value for key, value in directions.provenance.items() if key != "tool"}


def main() -> None:
    """`python -m iti_llama.examples.bundled_model.compare_directions A B`"""
    first, second = (Path(argument) for argument in sys.argv[1:])
    largest = difference(ITIDirections.load(first), ITIDirections.load(second))
    same = first.read_bytes() == second.read_bytes()
    print(f"the same heads; numbers differ by {largest:.1e} at most; {'the same' if same else 'other'} bytes")
    if largest > TOLERANCE:
        sys.exit(f"expected {TOLERANCE:g} at most")


if __name__ == "__main__":
    main()
