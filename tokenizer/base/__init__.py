"""What every tokenizer has: its configuration, its interface, its inputs, its artefact."""
