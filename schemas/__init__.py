"""Schemas of the lake's tables and the layout of a semantic ID."""
