"""A steered repo: make, describe (card), convert older files into it, look into it, verify, push.

In: a base and directions, or a folder. Out: a folder, a Hub repo, or what was found in one.
May import `foundation`, `data`, `fit` and `measure`.
"""
