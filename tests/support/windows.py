"""The kernels' entries for Windows, called on another system, by functions that call as Windows does."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import llvmlite.binding as llvm

from minisbert.kernels.levels import CHOSEN
from minisbert.kernels.runtime import executable, load
from minisbert.kernels.runtime.kernelfile import ENTRIES, unpacked

_engines: list[Any] = []  # the code goes with its engine


def use_entries_for_windows() -> None:
    """Let every backend of this process call the entries for Windows."""
    load.kernels = kernels_by_windows


def kernels_by_windows() -> Any:
    """Return what `load.kernels` does."""
    path = load.FOLDER / load.file_name(str(CHOSEN))
    code, starts = executable.place(path.read_bytes(), path), unpacked(path.read_bytes(), "", "windows")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly("\n".join(_caller(name, code + start) for name, start in starts.items()))
    engine = llvm.create_mcjit_compiler(module, llvm.Target.from_default_triple().create_target_machine())
    engine.finalize_object()
    _engines.append(engine)
    kinds = {name: ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count) for name, count in ENTRIES.items()}
    return SimpleNamespace(**{name: kind(engine.get_function_address(name)) for name, kind in kinds.items()})


def _caller(name: str, address: int) -> str:
    """Return a function that calls an address, and ends the process if a register is not as it was.

    LLVM leaves the numbers that are compared where functions of Windows have to leave what there is: xmm6 to xmm15.
    """
    given, kept = ", ".join(f"i64 %a{i}" for i in range(ENTRIES[name])), range(10)
    before = [f"  %b{i} = load volatile double, ptr @numbers" for i in kept]
    after = [
        f"  %c{i} = load volatile double, ptr @numbers\n  %d{i} = fcmp une double %b{i}, %c{i}" for i in kept
    ]
    found = ["  %e0 = or i1 %d0, false", *(f"  %e{i} = or i1 %e{i - 1}, %d{i}" for i in kept[1:])]
    return "\n".join(
        [
            "@numbers = internal global double 1.5" if name == next(iter(ENTRIES)) else "",
            f"define void @{name}({given}) {{",
            *before,
            f"  %target = inttoptr i64 {address} to ptr\n  call win64cc void %target({given})",
            *after,
            *found,
            "  br i1 %e9, label %changed, label %done",
            "changed:\n  call void @llvm.trap()\n  unreachable",
            "done:\n  ret void\n}",
        ]
    )
