"""A stand-in for Intel's package, for tests only; see `torch`."""
