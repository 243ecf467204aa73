"""Labelled sets: their format, their splits, a baseline from the texts alone, and the programs in answers.

In: JSON Lines. Out: lists of `Example`, outcomes of programs.
May import `foundation`.
"""
