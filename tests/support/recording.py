"""Watch the forward pass from outside: a backend that keeps what each operation returned."""

from __future__ import annotations

from typing import Any

import numpy as np

from minisbert import model
from minisbert.encoder import SentenceEncoder


class Recorder:
    """Passes every call on to a backend and keeps a copy of each result, in order."""

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._kernels, name)

        def call(*arguments: Any, **named: Any) -> Any:
            result = function(*arguments, **named)
            self.calls.append((name, np.array(result)))
            return result

        return call


def stages(encoder: SentenceEncoder, ids: Any, offsets: Any) -> dict[str, Any]:
    """Run the forward pass over token ids and return every intermediate result by name, in order."""
    recorder = Recorder(encoder._kernels)
    types = np.zeros_like(ids)
    config = encoder.config.transformer
    states = model.hidden_states(ids, types, offsets, encoder._weights, config, recorder)
    model.features(states, offsets, 0, encoder._steps, recorder)
    calls = iter(recorder.calls)

    def result_of(operation: str) -> Any:
        name, result = next(calls)
        assert name == operation, f"the forward pass called {name} where {operation} was expected"
        return result

    found = {"positions": result_of("positions"), "sum": result_of("embed")}
    found["embeddings"] = result_of("layer_norm")
    if config.embedding_size != config.hidden_size:
        found["projected"] = result_of("linear")
    for i in range(config.num_hidden_layers):
        found |= zip(
            (f"layer{i}.query", f"layer{i}.key", f"layer{i}.value"),
            np.split(result_of("linear"), 3, axis=1),
            strict=True,
        )
        found[f"layer{i}.context"] = result_of("attention")
        found[f"layer{i}.attention_sum"] = result_of("linear")
        found[f"layer{i}.attention"] = result_of("layer_norm")
        found[f"layer{i}.intermediate"] = result_of("linear")
        found[f"layer{i}.output_sum"] = result_of("linear")
        found[f"layer{i}.output"] = result_of("layer_norm")
    return found | {"pooled": result_of("pool"), "normalised": result_of("normalize")}
