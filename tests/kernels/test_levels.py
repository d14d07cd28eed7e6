"""Which level a processor gets, from what NumPy says of it."""

from __future__ import annotations

import sys

import pytest

from minisbert.kernels import levels

X86 = {"SSE", "SSE2", "SSE3", "SSSE3", "SSE41", "SSE42", "POPCNT"}
HASWELL = X86 | {"AVX", "F16C", "FMA3", "AVX2"}
SKYLAKE = HASWELL | {"AVX512F", "AVX512CD", "AVX512_SKX"}
# NumPy takes these for granted on any 64-bit ARM: it can't ask for them on macOS and Windows.
ARM = {"NEON", "NEON_FP16", "NEON_VFPV4", "ASIMD"}
V2, V3, V4 = "x86-64-v2", "x86-64-v3", "x86-64-v4"
PROCESSORS = {
    "Nehalem": ("x86_64", "linux", X86, [V2]),
    "Core 2": ("x86_64", "linux", X86 - {"SSE42", "POPCNT"}, []),
    "Haswell": ("x86_64", "darwin", HASWELL, [V3, V2]),
    "FMA4 alone": ("x86_64", "linux", HASWELL - {"FMA3"} | {"FMA4"}, [V2]),
    "Skylake": ("x86_64", "linux", SKYLAKE, [V4, V3, V2]),
    "Knights Landing": ("x86_64", "linux", SKYLAKE - {"AVX512_SKX"}, [V3, V2]),
    "Skylake, Windows": ("x86_64", "win32", SKYLAKE, [V4, V3, V2]),
    "Graviton": ("aarch64", "linux", ARM | {"ASIMDDP", "SVE"}, ["aarch64"]),
    "Apple silicon": ("aarch64", "darwin", ARM, ["aarch64"]),
    "ARM, Windows": ("aarch64", "win32", ARM, ["aarch64"]),
    "another": (None, "linux", set(), []),
}


@pytest.mark.parametrize("name", PROCESSORS)
def test_levels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, system, features, expected = PROCESSORS[name]
    monkeypatch.setattr(levels, "HOST", host)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(levels, "features", lambda: frozenset(features))
    assert levels.host_levels() == expected
