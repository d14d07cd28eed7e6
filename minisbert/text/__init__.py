"""Texts, or pairs of them, to token ids: the `tokenizers` library, overruled where other files decide."""
