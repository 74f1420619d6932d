"""Commands that only look: status and explain."""
