"""A stand-in for vLLM: it tells what model is being made."""
