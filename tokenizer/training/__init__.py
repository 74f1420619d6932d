"""From embeddings to a trained tokenizer."""
