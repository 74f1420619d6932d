"""What a tokenizer is measured by."""
