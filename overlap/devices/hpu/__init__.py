"""A real Gaudi card, through Intel's PyTorch bridge. Only `bridge.py` imports `habana_frameworks`."""
