"""The demo: a generated catalogue with known latent factors, and shoppers whose clicks follow them."""
