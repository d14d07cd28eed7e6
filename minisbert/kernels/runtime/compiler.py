"""What kernels are written with: Numba, told what a kernel is, and a few functions that emit LLVM instructions.

Kernels take integers (addresses and sizes) and floats, allocate nothing, raise nothing and return nothing. So what
Numba makes of them is plain machine code. Only `build` imports this module and those of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from minisbert.kernels import tuning
from minisbert.kernels.operations import OPERATIONS
from minisbert.kernels.runtime.instructions import MADE_UP

__all__ = [
    "branch",
    "call_of",
    "columns_of_scores",
    "columns_of_values",
    "count_panels",
    "doubles_at",
    "floats_at",
    "inlined",
    "ints_at",
    "kernel",
    "longs_at",
    "operation",
    "per_word",
    "row_bytes",
    "scratch",
    "start_of_panel",
    "unit_of",
    "word_bytes",
    "words",
]

for _name in MADE_UP:
    binding.add_symbol(f"minisbert.{_name}", 1)  # so that Numba finds them; nobody calls them there

_OPTIONS: dict[str, Any] = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}


def kernel(*arguments: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function of integers (``"i8"``) and floats (``"f8"``)."""
    kinds = (types.int64 if kind == "i8" else types.float64 for kind in arguments)
    compile_: Callable[[Callable[..., Any]], Any] = numba.njit(types.void(*kinds), **_OPTIONS)
    return compile_


def inlined(function: Callable[..., Any]) -> Any:
    """Make a short function that is inlined into the kernels that call it, before anything is compiled.

    What has loops is better a kernel: attention took a third longer to compile with such functions inlined.
    """
    return numba.njit(inline="always", **_OPTIONS)(function)


row_bytes = inlined(tuning.row_bytes)
count_panels, start_of_panel = inlined(tuning.count_panels), inlined(tuning.start_of_panel)
columns_of_scores, columns_of_values = inlined(tuning.columns_of_scores), inlined(tuning.columns_of_values)
per_word, words = inlined(tuning.per_word), inlined(tuning.words)
word_bytes = inlined(tuning.word_bytes)


def operation(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Compile the kernel of an operation for the arguments that the table gives it; refuse one that has others."""

    def compile_(function: Callable[..., Any]) -> Any:
        check_arguments(name, function)
        kinds = ("f8" if kind == "real" else "i8" for kind in OPERATIONS[name].kinds)
        return kernel(*kinds)(function)

    return compile_


def unit_of(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make what does one unit of a shared operation: a function of the unit, the thread's slot, and the arguments."""

    def inline(function: Callable[..., Any]) -> Any:
        check_arguments(name, function, "unit", "slot")
        return inlined(function)

    return inline


def check_arguments(name: str, function: Callable[..., Any], *before: str) -> None:
    """Refuse a function whose arguments are not those that the table has for an operation."""
    code, expected = function.__code__, (*before, *OPERATIONS[name].names)
    found = code.co_varnames[: code.co_argcount]
    if found != expected:
        raise TypeError(f"the kernel of {name} takes {found}; expected {expected}")


def call_of(name: str, *before: str) -> str:
    """Return the call of an operation whose arguments are in ``a``, and those that are float64 in ``reals``."""
    given = (f"{'reals' if kind == 'real' else 'a'}[{i}]" for i, kind in enumerate(OPERATIONS[name].kinds))
    return ", ".join((*before, *given))


def branch(name: str, parameters: str, calls: dict[int, str], scope: dict[str, Any]) -> Callable[..., Any]:
    """Make a function that makes one of several calls, by its first parameter: a chain of ifs.

    Numba can't index functions.
    """
    number, *_ = parameters.split(",")
    chain = "\n    el".join(f"if {number} == {code}: {call}" for code, call in calls.items())
    found = {"__name__": __name__} | scope
    exec(f"def {name}({parameters}):\n    {chain}", found)
    function: Callable[..., Any] = found[name]
    return function


def _pointer_to(kind: Any) -> Any:
    """Make the function from an address to what is there, as an array without end."""

    @intrinsic
    def pointer(_typing: Any, address: Any) -> Any:
        result = types.CPointer(kind)

        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
            return b.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.intp), emit

    return pointer


floats_at, doubles_at = map(_pointer_to, (types.float32, types.float64))
ints_at, longs_at = map(_pointer_to, (types.int32, types.int64))


def scratch(count: int) -> Any:
    """Make the function that returns the address of so many floats, for as long as the kernel that calls it runs."""

    @intrinsic
    def address(_typing: Any) -> Any:
        def emit(_context: Any, b: Any, _signature: Any, _arguments: Any) -> Any:
            with b.goto_entry_block():  # not by `alloca_once`, which writes zeros each time
                place = b.alloca(ir.ArrayType(ir.FloatType(), count))
            place.align = tuning.LINE
            return b.ptrtoint(place, ir.IntType(64))

        return types.intp(), emit

    return address
