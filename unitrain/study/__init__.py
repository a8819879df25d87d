"""Quantised and pruned variants of one model, side by side: what each costs, what it gains, how sure that is."""
