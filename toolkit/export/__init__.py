"""Export a steered repo to forms that other engines read, with the proof that they steer.

In: a folder or Hub repo, without loading the model. Out: a plain Llama checkpoint, GGUF, a PEFT or vLLM adapter, each
with its canary. Imports all rooms but `bundled` and `cli`.
"""
