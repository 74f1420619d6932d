"""Residual k-means and RQ-VAE."""
