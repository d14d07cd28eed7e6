"""The compiled backend: runs the operations with the kernels in `source`; plans record a whole model, and replay it."""
