"""The documentation, and :mod:`docs.reference`, which makes parts of it from the code."""
