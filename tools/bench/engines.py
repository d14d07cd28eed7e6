"""The engines that `run.py` times: each is a function from texts to vectors, at the best settings a user would find.

All get the same threads and length-sorted batches. The peers' graphs are made from the same checkpoint, with pooling
and normalising inside, and with the attention that each peer has a kernel of its own for: ONNX Runtime finds that one
by itself only in graphs that older exporters wrote, so it is put in by name.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import minisbert

__all__ = [
    "ENGINES",
    "TITLES",
    "Encode",
    "batches",
    "export",
    "make",
    "onnxruntime_session",
    "openvino_queue",
    "reference_vectors",
    "sentence_graph",
    "sentence_transformer",
    "tokenizer",
]

Encode = Callable[[list[str], int], NDArray[Any]]  # texts and the size of a batch
Tokenize = Callable[[list[str]], dict[str, NDArray[Any]]]


def minisbert_engine(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    encoder = minisbert.load(folder, num_threads=threads)
    encoder.max_seq_length = limit

    def encode(texts: list[str], batch_size: int) -> NDArray[Any]:
        found: NDArray[Any] = encoder.encode(texts, batch_size=batch_size, truncation="silent")
        return found

    return encode


def torch_engine(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    import torch

    torch.set_num_threads(threads)
    model = sentence_transformer(folder, limit)
    return lambda texts, batch_size: model.encode(texts, batch_size=batch_size, show_progress_bar=False)


def onnxruntime_engine(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    path = scratch / "fused.onnx"
    if not path.exists():
        export(folder, path)
    return onnxruntime_session(path, folder, threads, limit)


def onnxruntime_session(path: Path, folder: Path, threads: int, limit: int) -> Encode:
    """Run a graph from arrays to vectors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]
    tokenize = tokenizer(folder, limit)

    def encode(texts: list[str], batch_size: int) -> NDArray[Any]:
        vectors: list[Any] = [None] * len(texts)
        for rows, batch in batches(texts, batch_size, tokenize):
            found = session.run(None, {name: batch[name] for name in names})[0]
            for row, vector in zip(rows, found, strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    return encode


def openvino_engine(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    """In float32: its own choice on new processors is bfloat16."""
    import openvino

    graph, names, sample = sentence_graph(folder)
    model = openvino.convert_model(graph, example_input=sample)
    return openvino_queue(model, names, folder, threads, limit, "f32")


def openvino_queue(
    model: Any, names: list[str], folder: Path, threads: int, limit: int, precision: str
) -> Encode:
    """Run a model: many texts by OpenVINO's queue of requests, one directly."""
    import openvino

    core, settings = (
        openvino.Core(),
        {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": precision},
    )
    single = core.compile_model(model, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
    many = core.compile_model(model, "CPU", {**settings, "PERFORMANCE_HINT": "THROUGHPUT"})
    queue, tokenize = openvino.AsyncInferQueue(many), tokenizer(folder, limit)

    def encode(texts: list[str], batch_size: int) -> NDArray[Any]:
        vectors: list[Any] = [None] * len(texts)

        def keep(request: Any, rows: list[int]) -> None:
            for row, vector in zip(rows, request.get_output_tensor().data.copy(), strict=True):
                vectors[row] = vector

        if len(texts) == 1:
            batch = tokenize(texts)
            alone: NDArray[Any] = single([batch[name] for name in names])[0]
            return alone
        queue.set_callback(keep)
        for rows, batch in batches(texts, batch_size, tokenize):
            queue.start_async(dict(enumerate(batch[name] for name in names)), rows)
        queue.wait_all()
        return np.stack(vectors)

    return encode


ENGINES: dict[str, Callable[[Path, int, int, Path], Encode]] = {
    "minisbert": minisbert_engine,
    "torch": torch_engine,
    "onnxruntime": onnxruntime_engine,
    "openvino": openvino_engine,
}
TITLES = {"minisbert": "minisbert", "torch": "torch", "onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def make(names: list[str], folder: Path, threads: int, limit: int, scratch: Path) -> dict[str, Encode]:
    """Load a checkpoint into each engine; `limit` is how many tokens of a text all of them read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peers' own: what tracing means, and what they will rename
        return {name: ENGINES[name](folder, threads, limit, scratch) for name in names}


def reference_vectors(folder: Path, limit: int, texts: list[str]) -> NDArray[np.float64]:
    """Return what sentence-transformers gives in float64, against which every engine is checked."""
    found: NDArray[np.float64] = sentence_transformer(folder, limit).double().encode(texts, batch_size=16)
    return found


# --- What the graph engines need --------------------------------------------------------------------------


def sentence_transformer(folder: Path, limit: int | None = None) -> Any:
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = SentenceTransformer(str(folder), device="cpu")
    if limit is not None:
        model.max_seq_length = limit
    return model


def tokenizer(folder: Path, limit: int) -> Tokenize:
    library = sentence_transformer(folder).tokenizer
    return lambda texts: dict(
        library(texts, padding=True, truncation=True, max_length=limit, return_tensors="np")
    )


def batches(
    texts: list[str], batch_size: int, tokenize: Tokenize
) -> Iterator[tuple[list[int], dict[str, NDArray[Any]]]]:
    """Yield rows and padded arrays, longest texts first, as sentence-transformers makes them."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, tokenize([texts[row] for row in rows])


def sentence_graph(folder: Path) -> tuple[Any, list[str], tuple[Any, ...]]:
    """Return a torch module from token ids to sentence vectors, the names of its inputs, and a sample of them."""
    import torch

    modules = sentence_transformer(folder)
    transformer = modules[0].auto_model.eval()
    normalize = any(type(module).__name__ == "Normalize" for module in modules)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    names = names[: 3 if transformer.config.type_vocab_size > 1 else 2]

    class SentenceGraph(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
        def forward(self, *arrays: Any) -> Any:
            states = transformer(**dict(zip(names, arrays, strict=True))).last_hidden_state
            mask = arrays[1].unsqueeze(-1).to(states.dtype)
            pooled = (states * mask).sum(1) / mask.sum(1)
            return torch.nn.functional.normalize(pooled, dim=-1) if normalize else pooled

    graph = SentenceGraph()
    graph.transformer = transformer
    return graph, names, tuple(torch.ones((2, 9), dtype=torch.int64) for _ in names)


def export(folder: Path, path: Path) -> None:
    """Write a checkpoint as ONNX, with ONNX Runtime's MultiHeadAttention in place of torch's."""
    import torch

    graph, names, sample = sentence_graph(folder)
    fuse_attention(graph)
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"vectors": {0: "texts"}}
    torch.onnx.export(
        graph,
        sample,
        str(path),
        input_names=names,
        output_names=["vectors"],
        dynamic_axes=axes,
        dynamo=False,
        custom_opsets={"com.microsoft": 1},
    )


def fuse_attention(graph: Any) -> None:
    """Replace each layer's attention by one node of ONNX Runtime's; the graph is then good for exporting only."""
    import torch

    class Attention(torch.autograd.Function):  # type: ignore[misc, name-defined, unused-ignore]
        @staticmethod
        def forward(_context: Any, q: Any, *_rest: Any) -> Any:
            return torch.empty_like(q)  # a trace asks for shapes alone

        @staticmethod
        def symbolic(g: Any, q: Any, k: Any, v: Any, bias: Any, mask: Any, heads: int) -> Any:
            node = g.op("com.microsoft::MultiHeadAttention", q, k, v, bias, mask, num_heads_i=heads)
            return node.setType(q.type())

    def replace(attention: Any) -> None:
        parts = (attention.query, attention.key, attention.value)

        def forward(x: Any, *_arguments: Any, **_named: Any) -> tuple[Any, None]:
            bias = torch.cat([part.bias for part in parts])
            heads = graph.transformer.config.num_attention_heads
            return Attention.apply(*(x @ part.weight.T for part in parts), bias, masks[0], heads), None

        attention.forward = forward

    masks: list[Any] = []
    graph.register_forward_pre_hook(lambda _module, arrays: masks.insert(0, arrays[1].to(torch.int32)))
    for layer in graph.transformer.encoder.layer:
        replace(layer.attention.self)
