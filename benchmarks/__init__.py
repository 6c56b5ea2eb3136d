"""Speed of minigrad as ratios to the matrix products alone, to hand-written NumPy and to other frameworks."""
