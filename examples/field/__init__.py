"""Measure on a real Llama what others measure: instructions of IFEval, pairs of CAA and of Anthropic's evals."""
