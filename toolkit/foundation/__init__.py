"""Everything that two or more rooms need: files, hashes, intervals, completing prompts, the sandbox.

In: models, texts, numbers. Out: the same, hashed, completed, averaged or run.
May import the root modules and no other room.
"""
