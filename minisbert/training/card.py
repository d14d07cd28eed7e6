"""The README of a trained checkpoint: what it is, how it is used, and what was done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import minisbert
from minisbert.checkpoint.config import CheckpointConfig

__all__ = ["model_card"]

_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
- loss:{loss}
---

# {title}

A Sentence-BERT model, fine-tuned from {base} by [minisbert](https://pypi.org/project/minisbert/) {version}. It gives
vectors of {dimension} components, and reads {max_seq_length} tokens of a text.

```python
import minisbert  # or: from sentence_transformers import SentenceTransformer

encoder = minisbert.load({title!r})  # or: SentenceTransformer({title!r})
vectors = encoder.encode(["A first sentence.", "A second one."])
```

## Training

{data}

{steps:,} steps with the loss `{loss}`; the mean loss of the first tenth of the steps was {first:.4f}, and of the last
tenth {last:.4f}. `train.jsonl` has the loss of each step.{evaluations}

The parameters of `minisbert.training.fit`:

```json
{parameters}
```
"""


def model_card(
    record: Any,
    base: str,
    arguments: dict[str, Any],
    data: Mapping[str, int],
    config: CheckpointConfig,
) -> str:
    """Write the README of a checkpoint, of what `fit` has done; `data` has the number of rows of each data set."""
    losses, tenth = record.losses, max(1, len(record.losses) // 10)
    rows = [
        f"| {step} | {score:.4f} |{' kept' * (step == record.best_step)}"
        for step, score in record.evaluations
    ]
    table = ["", "", f"| step | {record.metric} |", "|---|---|", *rows] if rows else []
    return _CARD.format(
        title=record.output.name,
        base=Path(base).name if Path(base).exists() else base,
        version=minisbert.__version__,
        dimension=config.embedding_dimension,
        max_seq_length=config.max_seq_length,
        data="\n".join(f"- {Path(name).name}: {count:,} rows" for name, count in data.items()),
        steps=len(losses),
        loss=arguments["loss"],
        first=sum(losses[:tenth]) / tenth,
        last=sum(losses[-tenth:]) / tenth,
        evaluations="\n".join(table),
        parameters=json.dumps(arguments, indent=2),
    )
