"""Config values, found by Hydra as `pkg://overlap.conf`. The schemas stand beside the code that they configure."""
