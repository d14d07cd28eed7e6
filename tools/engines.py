"""The engines that `bench.py` times: each is a function from texts to vectors, at the settings a user would find.

Every peer gets length-sorted batches of 32, as sentence-transformers makes them, and the same number of threads. The
graphs of ONNX Runtime and OpenVINO are exported from the same checkpoint, with pooling and normalising inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minisbert

Encode = Callable[[list[str]], Any]
BATCH = 32


def minisbert_engine(folder: Path, threads: int, scratch: Path) -> Encode:
    encoder = minisbert.load(folder, num_threads=threads)
    return lambda texts: encoder.encode(texts, truncation="silent", show_progress_bar=False)


def torch_engine(folder: Path, threads: int, scratch: Path) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(texts, batch_size=BATCH, show_progress_bar=False)


def onnxruntime_engine(folder: Path, threads: int, scratch: Path) -> Encode:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        export(folder, scratch), options, providers=["CPUExecutionProvider"]
    )
    names = [given.name for given in session.get_inputs()]
    tokenize = tokenizer(folder)

    def encode(texts: list[str]) -> Any:
        vectors: list[Any] = [None] * len(texts)
        for rows, batch in batches(texts, tokenize):
            found = session.run(None, {name: batch[name] for name in names})[0]
            for row, vector in zip(rows, found, strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    return encode


def openvino_engine(folder: Path, threads: int, scratch: Path) -> Encode:
    """In float32 (its own choice on new processors is bfloat16); many texts by its queue of requests, one directly."""
    import openvino

    core, graph = openvino.Core(), export(folder, scratch)
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    single = core.compile_model(graph, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
    many = core.compile_model(graph, "CPU", {**settings, "PERFORMANCE_HINT": "THROUGHPUT"})
    names = [given.any_name for given in many.inputs]
    queue, tokenize = openvino.AsyncInferQueue(many), tokenizer(folder)

    def encode(texts: list[str]) -> Any:
        vectors: list[Any] = [None] * len(texts)

        def keep(request: Any, rows: list[int]) -> None:
            for row, vector in zip(rows, request.get_output_tensor().data.copy(), strict=True):
                vectors[row] = vector

        if len(texts) == 1:
            ((_, batch),) = batches(texts, tokenize)
            return single({name: batch[name] for name in names})[0]
        queue.set_callback(keep)
        for rows, batch in batches(texts, tokenize):
            queue.start_async({name: batch[name] for name in names}, rows)
        queue.wait_all()
        return np.stack(vectors)

    return encode


ENGINES = {
    "minisbert": minisbert_engine,
    "torch": torch_engine,
    "onnxruntime": onnxruntime_engine,
    "openvino": openvino_engine,
}


# --- What the graph engines need --------------------------------------------------------------------------


def tokenizer(folder: Path) -> Callable[[list[str]], dict[str, Any]]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    library, limit = model.tokenizer, model.max_seq_length
    return lambda texts: dict(
        library(texts, padding=True, truncation=True, max_length=limit, return_tensors="np")
    )


def batches(
    texts: list[str], tokenize: Callable[[list[str]], dict[str, Any]]
) -> Iterator[tuple[list[int], Any]]:
    """Yield rows and padded arrays, longest texts first."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        yield rows, tokenize([texts[row] for row in rows])


def export(folder: Path, scratch: Path) -> str:
    """Export a checkpoint to ONNX once, from token ids to normalised sentence vectors."""
    import torch
    from sentence_transformers import SentenceTransformer

    path = scratch / "model.onnx"
    if path.exists():
        return str(path)
    transformer = SentenceTransformer(str(folder), device="cpu")[0].auto_model.eval()
    names = ["input_ids", "attention_mask", "token_type_ids"][
        : 3 if transformer.config.type_vocab_size > 1 else 2
    ]

    class Graph(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *arrays: Any) -> Any:
            states = transformer(**dict(zip(names, arrays, strict=True))).last_hidden_state
            mask = arrays[1].unsqueeze(-1).to(states.dtype)
            pooled = (states * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(pooled, dim=-1)

    graph = Graph()
    graph.transformer = transformer
    sample = tuple(torch.ones((2, 9), dtype=torch.int64) for _ in names)
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"vectors": {0: "texts"}}
    torch.onnx.export(
        graph, sample, str(path), input_names=names, output_names=["vectors"], dynamic_axes=axes, dynamo=False
    )
    return str(path)
