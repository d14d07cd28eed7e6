"""The definition of every operation, in plain NumPy and any float dtype: run in float64 it is the oracle."""
