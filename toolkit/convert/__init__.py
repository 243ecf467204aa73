"""Older ITI code's files and baked checkpoints, turned into steered repos.

In: pickles, JSON files, checkpoints. Out: a steered repo that does the same.
May import `repo` and the rooms below it.
"""
