"""Guesses at a configuration from what a source holds, for a newcomer to mend."""
