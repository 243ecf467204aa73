"""What others measure, on a real Llama: instructions of IFEval, pairs of CAA and of Anthropic's evals."""
