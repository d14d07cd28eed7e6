"""Whole inputs to results: reading, micro-batches, worker threads, collecting. What both public classes share."""
