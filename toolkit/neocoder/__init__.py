"""NeoCoder (Lu et al., NAACL 2025): its problems, the techniques that programs use, labels, samples, task sets;
and the claims of an earlier creativity steering, asked again.

In: NeoCoder's files, a model to sample or to steer. Out: labelled sets, task sets, two tables.
May import `repo` and the rooms below it.
"""
