"""The kernels: Python and LLVM instructions that Numba compiles; imported where there is no machine code yet."""
