"""What vLLM on Gaudi reads from its environment, and files that set it."""
