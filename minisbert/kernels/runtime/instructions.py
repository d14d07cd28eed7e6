"""Instructions that only some processors have.

Numba makes machine code for the processor at hand at once, whatever the target is. So what only the target can do is
the call of a function that there is not, until `build` knows the target: then it gets the name that LLVM has for it.
"""

from __future__ import annotations

import re

from minisbert.kernels.levels import Level

__all__ = ["MADE_UP", "for_target"]

# The functions that there are not. But for the first one, they differ from LLVM's by their first name only.
_TILES = ("ldtilecfg", "tilerelease", "tilezero", "tileloadd64", "tilestored64", "tdpbf16ps", "tdpbssd")
_DOTS = ("avx512bf16.dpbf16ps.512", *(f"avx512.vpdpbusd.{bits}" for bits in (128, 256, 512)))
_PAIRS = ("sse2.pmadd.wd", "avx2.pmadd.wd", "avx512.pmaddw.d.512")
_ARM = (f"aarch64.neon.{name}.v4i32.v16i8" for name in ("sdot", "smmla"))
MADE_UP = ("pause", *_ARM, *(f"x86.{name}" for name in (*_TILES, *_DOTS, *_PAIRS)))
# How a thread that spins tells the processor so.
_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause()", "llvm.x86.sse2.pause()"),
    "aarch64": ("llvm.aarch64.hint(i32)", "llvm.aarch64.hint(i32 1)"),
}
_AMX = "+amx-tile,+amx-bf16,+amx-int8"
# Kernels whose loops are made of vectors already: to unroll them doubles their size, and wins nothing.
COMPACT = ("narrow", "amx", "smmla", "dot")


def for_target(text: str, level: Level) -> str:
    """Put the instructions of a level into a module in LLVM's language."""
    declared, called = _PAUSES[level.architecture]
    text = re.sub(r"^declare .*@minisbert\.pause.*\n", f"declare void @{declared}\n", text, flags=re.M)
    text = text.replace("@minisbert.pause()", f"@{called}").replace("@minisbert.", "@llvm.")
    for module in COMPACT:
        text = _with_attribute(text, module, "optsize")
    # These run only where the processor has more. In `dot` they are the micro-kernels alone, which LLVM does not inline
    # then, and not those of pairs: where it may, it makes one instruction of two, which other processors do not have.
    for module, more, name in (("amx", _AMX, ""), ("smmla", "+i8mm", ""), ("dot", level.dots, r"\d+dot_")):
        features = ",".join(filter(None, (level.features, more)))
        text = _with_attribute(text, module, f'"target-features"="{features}"', name)
    return text


def _with_attribute(text: str, module: str, attribute: str, name: str = "") -> str:
    """Give an attribute to the kernels of a module of `kernels.source`, by the names that Numba gives them."""
    kernels = (
        rf'^(define .*@"?_ZN9minisbert7kernels6source{len(module)}{module}{name}.*?\))((?: [^()]*)?\{{)$'
    )
    return re.sub(kernels, rf"\1 {attribute}\2", text, flags=re.M)
