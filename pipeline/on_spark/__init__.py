"""What Spark does: every join, window, count and difference over a table."""
