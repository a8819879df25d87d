"""One declarative model, trained the same on NumPy, Keras (TensorFlow) and torch.nn."""

__version__ = "0.1.0"
