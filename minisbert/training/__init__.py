"""Fine-tuning of Sentence-BERT checkpoints: the other half of `minisbert.model`, in NumPy."""
