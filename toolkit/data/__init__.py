"""Labelled sets: their format, their splits, what the texts alone say, and programs taken out of answers.

In: JSON Lines. Out: lists of `Example`, outcomes of programs.
May import `foundation`.
"""
