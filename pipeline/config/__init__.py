"""The configuration of a lake and the file that holds it."""
