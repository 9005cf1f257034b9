"""A stand-in for vllm-gaudi with the one seam that `overlap.serve.vllm_plugin` uses; computes on the CPU."""
