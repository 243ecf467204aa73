"""Measure what the steering does: answer tasks, grade, compare conditions, choose a strength.

In: a steered model and a `TaskSet`. Out: rates with intervals, divergences, a choice, tables.
May import `foundation`, `data` and `fit`.
"""
