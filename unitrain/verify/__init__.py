"""Whether two computations are the same, by a yardstick and not by a tolerance."""
