"""SetFit: classify with a trained SetFit model, without torch: its body by minisbert, its head by scikit-learn.

    pip install scikit-learn
    python tools/recipes/setfit_head.py FOLDER [TEXT ...]

SetFit saves a sentence-transformers checkpoint, and beside it the head, `model_head.pkl`. That is a pickle, which runs
what is in it when it is opened: open those alone that you or people whom you trust have made. This is for heads of
scikit-learn, which is what SetFit makes unless it is told otherwise.
"""

import json
import sys
from pathlib import Path

import joblib
import numpy as np

import minisbert


class Classifier:
    """A SetFit model, read from its folder."""

    def __init__(self, folder: str | Path) -> None:
        settings = json.loads(Path(folder, "config_setfit.json").read_text(encoding="utf-8"))
        self.labels = settings.get("labels")
        self.normalizes = settings.get("normalize_embeddings", False)
        self.encoder = minisbert.load(folder)
        self.head = joblib.load(Path(folder, "model_head.pkl"))

    def predict_proba(self, texts: list[str]) -> np.ndarray:
        """Return the probability of each label for each text: (S, L)."""
        return self.head.predict_proba(self.encoder.encode(texts, normalize_embeddings=self.normalizes))

    def predict(self, texts: list[str]) -> list[str]:
        classes = self.head.classes_[self.predict_proba(texts).argmax(axis=1)]
        return [self.labels[number] for number in classes] if self.labels else classes.tolist()


if __name__ == "__main__":
    classifier = Classifier(sys.argv[1])
    for text in sys.argv[2:] or ["a film that I'd see again"]:
        print(f"{classifier.predict([text])[0]}  {text}")
