"""Texts, or pairs of them, to token ids: the `tokenizers` library, overruled where other files decide.

It uses `checkpoint`, and is used by the two encoders, `engine.inputs`, and `cli.check`. The kernels look ids up without
a check: `base.check_id` and `tokenizer.check_limits` see to it that every id and type has a row.
"""
