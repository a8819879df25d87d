"""The shared trainer, and the mathematics of training."""
