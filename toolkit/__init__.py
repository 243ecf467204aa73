"""How directions are made, measured and published: one file a step of the pipeline."""
