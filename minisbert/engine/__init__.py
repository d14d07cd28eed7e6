"""Whole inputs to results: reading, micro-batches, worker threads, collecting. What both public classes share.

What ``encode(["a"])`` goes through, on the compiled backend::

    encoder.encode                      checks its arguments, and that the weights are what was loaded
    engine.inputs.as_texts              the texts, which `read_chunks` reads in chunks and `token_chunks` tokenises, by
                                        text.tokenizer, text.base and the tokenizers library, when they are asked for
    engine.workers.compute_chunks       asks for threads (here the helpers, as there is one text), and yields results
    engine.batching.micro_batches       groups the rows of a chunk into micro-batches (here one, in this thread)
    encoder._compute                    ids, types and offsets of a micro-batch
    kernels.compiled.plan.Plan          the first time records model.sentence_vectors; from then on replays it:
    kernels.runtime.helpers.replay      machine code from here on
    kernels.source.workqueue.replay     positions, embed, layer_norm; then the first multiply, query, key and value:
    kernels.source.gemm, microkernel    a unit for each panel of weights, taken by all threads
    engine.collect.Collector            gathers the vectors
"""
