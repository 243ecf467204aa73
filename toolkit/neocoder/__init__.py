"""NeoCoder (Lu et al., NAACL 2025): its problems, the techniques that programs use, labels, samples, task sets.

In: NeoCoder's files, a model to sample. Out: labelled sets, task sets.
May import `repo` and the rooms below it.
"""
