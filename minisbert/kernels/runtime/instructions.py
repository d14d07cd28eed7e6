"""Instructions that only some processors have.

Numba makes machine code for the processor at hand at once, whatever the target is. So what only the target can do is
the call of a function that there is not, until `build` knows the target: then it gets the name that LLVM has for it.
"""

from __future__ import annotations

import re

__all__ = ["FEATURES", "MADE_UP", "for_target"]

# The functions that there are not. Those of x86 differ from LLVM's by their first name only.
_TILES = ("ldtilecfg", "tilerelease", "tilezero", "tileloadd64", "tilestored64", "tdpbf16ps", "tdpbssd")
_DOTS = ("avx512.vpdpbusd.512", "avx512bf16.dpbf16ps.512")
MADE_UP = ("pause", *(f"x86.{name}" for name in (*_TILES, *_DOTS)))
# How a thread that spins tells the processor so.
_PAUSES = {
    "x86_64": ("llvm.x86.sse2.pause()", "llvm.x86.sse2.pause()"),
    "aarch64": ("llvm.aarch64.hint(i32)", "llvm.aarch64.hint(i32 1)"),
}
# What the kernels of a module may use beyond the level; they run only where it is there.
FEATURES = {"amx": "+amx-tile,+amx-bf16,+amx-int8", "dot": "+avx512vnni,+avx512bf16"}
# Kernels whose loops are made of vectors already: to unroll them doubles their size, and wins nothing.
COMPACT = ("narrow", "amx", "dot")


def for_target(text: str, architecture: str, features: str) -> str:
    """Put the instructions of an architecture into a module in LLVM's language."""
    declared, called = _PAUSES[architecture]
    text = re.sub(r"^declare .*@minisbert\.pause.*\n", f"declare void @{declared}\n", text, flags=re.M)
    text = text.replace("@minisbert.pause()", f"@{called}").replace("@minisbert.", "@llvm.")
    for module in COMPACT:
        text = _with_attribute(text, module, "optsize")
    for module, more in FEATURES.items():
        text = _with_attribute(
            text, module, f'"target-features"="{",".join(filter(None, (features, more)))}"'
        )
    return text


def _with_attribute(text: str, module: str, attribute: str) -> str:
    """Give an attribute to the kernels of a module of `kernels.source`, by the names that Numba gives them."""
    kernels = rf'^(define .*@"?_ZN9minisbert7kernels6source{len(module)}{module}.*?\))((?: [^()]*)?\{{)$'
    return re.sub(kernels, rf"\1 {attribute}\2", text, flags=re.M)
