"""The compiled backend: the same operations on the kernels of `source`, and plans, recorded once and replayed."""
