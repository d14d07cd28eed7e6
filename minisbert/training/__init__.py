"""Fine-tuning of Sentence-BERT checkpoints in NumPy: the other half of `minisbert.model`.

Read `forward` and `backward` beside `minisbert.model`, and `gradients` beside `minisbert.kernels.reference.ops`; then
`losses`, `steps` (the gradient of a batch of any size), `optimiser`, and `loop`, in which they come together.

>>> record = minisbert.training.fit("sentence-transformers/all-MiniLM-L6-v2", "pairs.csv", "my-model")
"""

from minisbert.training.loop import Record, fit

__all__ = ["Record", "fit"]
