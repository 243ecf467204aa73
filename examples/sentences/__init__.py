"""Eight sentences that steer a real Llama, SmolLM2-135M-Instruct, and a table of what each does."""
