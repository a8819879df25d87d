"""Rewrites of a graph and its weights; each keeps or states what it changes in the numbers computed."""
