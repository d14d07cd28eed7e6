"""From a kernel in Python to machine code on disk and back, and the threads that run it."""
