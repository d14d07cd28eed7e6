"""What Numba knows of when it compiles a kernel: integers, floats and loops, and nothing of NumPy or Python's objects.

Numba compiles for a *target*, which says what operations there are. That for processors, ``cpu``, also knows arrays,
lists, strings, random numbers and so on. To load all that takes half a second, and then each ``+`` between two integers
is looked up among NumPy's too. Kernels have only integers, floats, tuples and ranges. So they are compiled for a target
of their own, in five sixths of the time. The ``cpu`` of others who use Numba in the same process stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from numba.core import types
from numba.core.compiler import Flags, compile_extra
from numba.core.cpu import CPUContext, CPUTargetOptions
from numba.core.cpu_options import FastMathOptions
from numba.core.descriptors import TargetDescriptor
from numba.core.dispatcher import Dispatcher
from numba.core.fastmathpass import rewrite_module
from numba.core.target_extension import (
    CPU,
    dispatcher_registry,
    jit_registry,
    target_override,
    target_registry,
)
from numba.core.typing import mathdecl
from numba.core.typing.context import BaseContext
from numba.cpython import mathimpl

__all__ = ["compile_kernel", "inlined"]

NAME = "minisbert"


class _Kernels(CPU):
    """The mark by which the functions that emit instructions find the rest."""


# If this module was imported before, its mark has to go first: the registry refuses to replace one.
target_registry.pop(NAME, None)
target_registry[NAME] = _Kernels


class _Kinds(BaseContext):
    """What can be done with which types: what Numba builds upon everywhere, and the functions of `math`."""

    def load_additional_registries(self) -> None:
        self.install_registry(mathdecl.registry)


class _Operations(CPUContext):
    """How it is done in LLVM's language."""

    def load_additional_registries(self) -> None:
        for name in ("builtins", "numbers", "rangeobj", "tupleobj"):  # known as soon as they are imported
            import_module(f"numba.cpython.{name}")
        self.install_registry(mathimpl.registry)

    def post_lowering(self, mod: Any, library: Any) -> None:
        """Finish a module: without Numba's memory manager, as kernels allocate nothing."""
        if self.fastmath:
            rewrite_module(mod, self.fastmath)


class _Descriptor(TargetDescriptor):
    options = CPUTargetOptions
    typing_context = _Kinds()
    target_context = _Operations(typing_context, NAME)


class _Dispatcher(Dispatcher):
    targetdescr = _Descriptor(NAME)


def _jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile what Numba has written in Python itself: ``min`` and ``max``."""
    return lambda function: _Dispatcher(function, targetoptions=options)


dispatcher_registry[_Kernels], jit_registry[_Kernels] = _Dispatcher, _jit


def inlined(function: Callable[..., Any]) -> Any:
    """Make a short function that is inlined into the kernels that call it, before anything is compiled.

    By itself it would be compiled, and then once more in every caller, in twice the time. What has loops is better a
    kernel: attention took a third longer to compile with such functions inlined. Unlike `numba.njit` this works where
    NUMBA_DISABLE_JIT is set.
    """
    return _Dispatcher(function, targetoptions={"nopython": True, "inline": "always"})


def compile_kernel(
    function: Callable[..., Any], kinds: tuple[Any, ...], fastmath: frozenset[str]
) -> tuple[str, bytes]:
    """Compile a function of such arguments that returns nothing, and return what the code calls it, and the code."""
    flags = Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_rewrites = True
    flags.error_model = "numpy"  # a division by zero raises nothing
    flags.fastmath = FastMathOptions(set(fastmath))
    with target_override(NAME):
        contexts = _Descriptor.typing_context, _Descriptor.target_context
        result = compile_extra(*contexts, function, kinds, types.void, flags, {})
    return result.fndesc.llvm_func_name, result.library._get_compiled_object()
