"""What a tuned model config is and how it is stored, for whoever serves the model."""
