"""The model in this repo: its corpus, its training, the tasks it is shown and measured on.

In: a seed. Out: training documents, labelled pairs, task sets, weights.
May import every room but `cli`.
"""
