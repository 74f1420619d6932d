"""Training of tokenizers and rankers with Ray Train, and scoring."""
