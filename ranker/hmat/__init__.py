"""The Hierarchical Memory-Anchor Transformer."""
