"""What Ray does: streaming a plan's rows through encoders and tokenizers, and training."""
