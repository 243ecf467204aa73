"""Turn files of older ITI code and baked checkpoints into steered repos.

In: pickles, JSON files, checkpoints. Out: a steered repo that does the same.
May import `repo` and the rooms below it.
"""
