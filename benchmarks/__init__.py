"""Comparisons that print a table: two things in one run, means and intervals."""
