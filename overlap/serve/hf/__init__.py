"""What a tuned config does inside a Hugging Face model; the way in is `overlap.serve.transformers`."""
