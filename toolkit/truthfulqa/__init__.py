"""TruthfulQA (Lin et al. 2022): multiple choice, and the experiment of Li et al. (2023) on it.

In: TruthfulQA's CSV file, a Llama. Out: MC1, MC2 and side effects, by fold.
May import `repo` and the rooms below it.
"""
