"""Labelled sets: their format, NeoCoder, what the texts alone say, a model's own solutions.

In: JSON Lines, NeoCoder's files, a model to sample. Out: lists of `Example`, problems, techniques.
May import `foundation`.
"""
