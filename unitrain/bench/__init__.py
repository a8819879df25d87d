"""Frameworks timed beside one another: tensor operations, gradients, training, inference."""
