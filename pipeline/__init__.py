"""The steps of the pipeline as plain functions."""
