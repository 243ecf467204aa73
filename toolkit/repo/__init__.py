"""Work on a steered repo: make it, describe it (card), look into it, verify it, push it.

In: a base and directions, or a folder. Out: a folder, a Hub repo, or what one holds.
May import `foundation`, `data`, `fit` and `measure`.
"""
