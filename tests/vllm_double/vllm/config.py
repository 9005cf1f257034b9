"""The config of the model that is being made, once a test has set it."""

from __future__ import annotations

current = None


def get_current_vllm_config():
    assert current is not None, "Current vLLM config is not set."
    return current
