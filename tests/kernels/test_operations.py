"""The table of operations: what it says is what the backends have and what the kernels take."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from minisbert.kernels import Kernels
from minisbert.kernels.compiled.ops import Ops
from minisbert.kernels.operations import ACTIVATION_CODES, ACTIVATIONS, ARGUMENTS, OPERATIONS
from minisbert.kernels.reference import activations
from minisbert.kernels.reference import ops as reference
from tests.support.backends import compiled as BACKEND

# Of the others the name is that of the method.
METHODS = {"mean_pool": "pool", "linear_narrow": "linear", "narrow": "linear", "attention_tiles": "attention"}


def test_every_operation_is_called_once_and_has_a_definition() -> None:
    for name in OPERATIONS:
        method = METHODS.get(name, name)
        parameters = [
            list(inspect.signature(getattr(where, method)).parameters)
            for where in (BACKEND, reference, Kernels)
        ]
        assert parameters[0] == parameters[1] == parameters[2][1:]
        assert inspect.getsource(Ops).count(f'"{name}"') == 1


def test_codes_are_unlike_and_arguments_fit() -> None:
    assert [row.code for row in OPERATIONS.values()] == list(range(len(OPERATIONS)))
    shared = [row.is_shared for row in OPERATIONS.values()]
    assert shared == sorted(shared, reverse=True)  # as `workqueue.execute` takes for granted
    assert max(len(row.names) for row in OPERATIONS.values()) == ARGUMENTS
    kinds = {kind for row in OPERATIONS.values() for kind in row.kinds}
    assert kinds == {"size", "rows", "floats", "int32", "int64", "real", "address"}


def test_a_kernel_with_other_arguments_than_the_table_has_is_refused() -> None:
    pytest.importorskip("numba", reason="kernels are written in Numba, which is not installed")
    from minisbert.kernels.runtime.compiler import operation

    def kernel(N: int, x: int, D: int, y: int) -> None: ...

    with pytest.raises(TypeError, match=r"the kernel of normalize takes .*expected"):
        operation("normalize")(kernel)


def test_what_is_not_shared_is_dispatched_with_its_arguments_in_order() -> None:
    pytest.importorskip("numba", reason="kernels are written in Numba, which is not installed")
    from minisbert.kernels.source import units

    assert units.CALLS[OPERATIONS["layer_norm"].code] == (
        "layer_norm(a[0], a[1], a[2], a[3], a[4], reals[5], a[6], a[7], a[8])"
    )
    shared = {name for name, row in OPERATIONS.items() if row.is_shared}
    assert set(units.CALLS) == {row.code for name, row in OPERATIONS.items() if name not in shared}


@pytest.mark.parametrize("arguments", [{}, {"N": 1}])
def test_an_argument_that_is_missing_is_noticed_before_anything_runs(arguments: dict[str, Any]) -> None:
    with pytest.raises(KeyError):
        BACKEND._do("normalize", **arguments)


def test_every_compiled_activation_has_a_definition_and_a_function() -> None:
    assert set(ACTIVATIONS) <= set(activations.ACTIVATIONS)
    assert len(ACTIVATION_CODES) == len(set(ACTIVATIONS.values()))
    x = np.linspace(-6, 6, 101, dtype=np.float32)[np.newaxis]
    dense = BACKEND.pack(np.eye(101), np.zeros(101), "float32")
    for name in ACTIVATIONS:
        expected = activations.ACTIVATIONS[name](x.copy())
        np.testing.assert_allclose(BACKEND.linear(x, dense, name), expected, atol=1e-6)
