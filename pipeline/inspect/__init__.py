"""Commands that only look: check, status, explain and report."""
