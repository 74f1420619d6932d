"""The Disentangled Semantic Tokenizer."""
