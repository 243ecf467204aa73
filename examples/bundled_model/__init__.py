"""The model in this repo, from a seed: its corpus, its training, its labelled pairs, the tasks it is measured on."""
