"""Resolving a model into a graph of concrete shapes, and rewriting graphs."""
