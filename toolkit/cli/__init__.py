"""The command line.

In: what a user types. Out: what the functions of the other rooms return, as tables or JSON. May import every other
room.
"""

from .app import app, main


__all__ = ["app", "main"]
