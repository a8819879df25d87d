"""Whether two computations are the same, by a yardstick and not by a tolerance.

`unitrain.verify.verdict.judge` compares one tensor with a float64 run of the NumPy reference. How much error is
allowed is measured, not chosen: it is a small multiple of the error that NumPy itself makes in float32.
"""
