"""From a sentence to a steered repo: the model answers requests with an instruction and without, and is steered by the
difference.

In: an instruction, a base, requests. Out: a repo, such as `repo.run_pipeline` makes from a labelled file.
May import every room up to `repo`.
"""
