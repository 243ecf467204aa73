"""Make the model in this repo from a seed: its corpus, training, labelled pairs, and the tasks it is measured on."""
