"""A run that is killed in the middle."""

import contextlib


def stopped_at(bar: int, call: int):
    """A `progress_bar` whose `bar`-th instance ends in a kill at its `call`-th step."""
    bars = []

    @contextlib.contextmanager
    def progress_bar(total=None):
        bars.append(0)
        number = len(bars)

        def advance(step, rows=None):
            bars[number - 1] += 1
            if (number, bars[number - 1]) == (bar, call):
                raise KeyboardInterrupt

        yield advance

    return progress_bar
