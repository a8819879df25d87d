"""Canonical weights: names and layouts, initial values, random streams, files."""
