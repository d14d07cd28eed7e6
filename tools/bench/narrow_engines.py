"""The engines that `dtypes.py` times: minisbert's dtypes, and what its peers have of fewer bits, at their best.

OpenVINO's int8 is calibrated on texts that are not timed; ONNX Runtime's and CTranslate2's need none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

import minisbert
from minisbert import kernels
from minisbert.engine import base
from minisbert.kernels.compiled import arithmetic, backend
from tools.bench.engines import (
    Encode,
    batches,
    export,
    onnxruntime_session,
    openvino_queue,
    sentence_graph,
    sentence_transformer,
    tokenizer,
)
from tools.bench.workloads import workloads

__all__ = ["DTYPES", "ENGINES", "LESSER"]


def minisbert_engine(dtype: str, folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    encoder = minisbert.load(folder, num_threads=threads, dtype=dtype)
    encoder.max_seq_length = limit

    def encode(texts: list[str], batch_size: int) -> NDArray[Any]:
        found: NDArray[Any] = encoder.encode(texts, batch_size=batch_size, truncation="silent")
        return found

    return encode


def lesser_engine(lacking: tuple[str, ...], dtype: str, *given: Any) -> Encode:
    """Load as on a processor that has no matrix unit, or no instruction for sums of products either."""
    with ExitStack() as stack:
        for module, name in ((arithmetic, "has_tiles"), (backend, "has_tiles"), (arithmetic, "has_dots")):
            if name in lacking:
                stack.enter_context(patch.object(module, name, lambda *_: False))
        stack.enter_context(patch.object(base, "_loaded", {}))  # by which encoders share weights
        kernels._compiled.cache_clear()
        engine = minisbert_engine(dtype, *given)
    kernels._compiled.cache_clear()
    return engine


def torch_engine(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    import torch

    torch.set_num_threads(threads)
    model = sentence_transformer(folder, limit).to(torch.bfloat16)

    def encode(texts: list[str], batch_size: int) -> NDArray[Any]:
        found = model.encode(texts, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True)
        vectors: NDArray[Any] = found.float().numpy()
        return vectors

    return encode


def openvino_bfloat16(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    import openvino

    graph, names, sample = sentence_graph(folder)
    model = openvino.convert_model(graph, example_input=sample)
    return openvino_queue(model, names, folder, threads, limit, "bf16")


def openvino_int8(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    """By NNCF, as its documentation says for transformers: calibrated on 300 texts, one at a time."""
    import nncf
    import openvino

    graph, names, sample = sentence_graph(folder)
    model, tokenize = openvino.convert_model(graph, example_input=sample), tokenizer(folder, limit)
    texts = workloads({"mixed": 1300})["mixed"][1000:]
    samples = [[batch[name] for name in names] for batch in map(tokenize, ([text] for text in texts))]
    quantized = nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER)
    return openvino_queue(quantized, names, folder, threads, limit, "f32")


def onnxruntime_int8(per_channel: bool, folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    """Dynamic: weights once, rows as they come."""
    from onnxruntime.quantization import quantize_dynamic

    fused, path = scratch / "fused.onnx", scratch / f"int8-{per_channel}.onnx"
    if not fused.exists():
        export(folder, fused)
    quantize_dynamic(fused, path, per_channel=per_channel)
    return onnxruntime_session(path, folder, threads, limit)


def ctranslate2_int8(folder: Path, threads: int, limit: int, scratch: Path) -> Encode:
    """Gives the states of tokens; they are pooled here, as the two models that are timed do."""
    import ctranslate2

    path = scratch / "ctranslate2"
    if not path.exists():
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(path), quantization="int8")
    model = ctranslate2.Encoder(str(path), compute_type="int8", intra_threads=threads)
    tokenize = tokenizer(folder, limit)
    normalizes = any(type(module).__name__ == "Normalize" for module in sentence_transformer(folder))

    def encode(texts: list[str], batch_size: int) -> NDArray[Any]:
        vectors: list[Any] = [None] * len(texts)
        for rows, batch in batches(texts, batch_size, tokenize):
            counts = batch["attention_mask"].sum(axis=1)
            ids = [row[:count].tolist() for row, count in zip(batch["input_ids"], counts, strict=True)]
            states = np.asarray(model.forward_batch(ids).last_hidden_state)
            for row, state, count in zip(rows, states, counts, strict=True):
                vectors[row] = state[:count].mean(axis=0)
        found = np.stack(vectors)
        return found / np.linalg.norm(found, axis=1, keepdims=True) if normalizes else found

    return encode


DTYPES = ("float16", "bfloat16", "int8")
# int8 by the instructions of processors that have less.
LESSER = {
    "minisbert int8, without AMX": ("has_tiles",),
    "minisbert int8, by pairs": ("has_tiles", "has_dots"),
}
ENGINES: dict[str, Callable[[Path, int, int, Path], Encode]] = {
    **{f"minisbert {dtype}": partial(minisbert_engine, dtype) for dtype in ("float32", *DTYPES)},
    **{name: partial(lesser_engine, lacking, "int8") for name, lacking in LESSER.items()},
    "torch bfloat16": torch_engine,
    "OpenVINO bfloat16": openvino_bfloat16,
    "OpenVINO int8": openvino_int8,
    "ONNX Runtime int8": partial(onnxruntime_int8, False),
    "ONNX Runtime int8, by channel": partial(onnxruntime_int8, True),
    "CTranslate2 int8": ctranslate2_int8,
}
