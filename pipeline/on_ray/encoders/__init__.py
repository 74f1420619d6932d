"""The encoders of texts and pictures."""
