"""How fast a processor's instructions for fewer bits are at the very most, and how fast minisbert multiplies by them.

The peak is a loop on registers alone: nothing is loaded or stored. What is reached is that of a layer's four multiplies
as `encode` does them: rows are rounded, weights come from the second-level cache or farther, and scales, bias and
residual are in it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import llvmlite.binding as llvm
import numpy as np

from minisbert.kernels.compiled.arithmetic import arithmetic
from minisbert.kernels.compiled.backend import Backend
from minisbert.kernels.layout import rows
from minisbert.kernels.levels import CHOSEN, LEVELS
from minisbert.kernels.tuning import IS_ARM, LANES
from tools.bench.measure import interleave, peak, together

__all__ = ["shares"]

ROWS, WIDTH = 232, 384  # tokens of a micro-batch, and MiniLM's width
SHAPES = [(3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)]
TURNS, SUMS = (
    200_000,
    12,
)  # of the loop; and sums in it, as many as a processor has under way at once, or more


class Instruction(NamedTuple):
    """LLVM's name of it, what sums and factors are, and how many multiplications and additions it makes.

    Where `adds`, it takes two factors alone, and another instruction adds their products to the sums.
    """

    name: str
    sums: str
    factors: str
    operations: int
    features: str = ""
    adds: bool = False


TILES, INTEGERS = "+amx-tile,+amx-bf16,+amx-int8", f"<{LANES} x i32>"
OF_X86 = {
    "bfloat16 tiles": Instruction("x86.tdpbf16ps", "", "", 2 * 16 * 16 * 32, TILES),
    "int8 tiles": Instruction("x86.tdpbssd", "", "", 2 * 16 * 16 * 64, TILES),
    "bfloat16 dot": Instruction(
        "x86.avx512bf16.dpbf16ps.512", "<16 x float>", "<32 x bfloat>", 64, "+avx512bf16"
    ),
    "int8 dot": Instruction(
        f"x86.avx512.vpdpbusd.{32 * LANES}",
        INTEGERS,
        INTEGERS,
        8 * LANES,
        "+avx512vnni" if LANES == 16 else "+avxvnni",
    ),
    "int8 pairs": Instruction(
        {16: "x86.avx512.pmaddw.d.512", 8: "x86.avx2.pmadd.wd"}.get(LANES, "x86.sse2.pmadd.wd"),
        INTEGERS,
        f"<{2 * LANES} x i16>",
        4 * LANES,
        adds=True,
    ),
}
OF_ARM = {
    "int8 dot": Instruction("aarch64.neon.sdot.v4i32.v16i8", INTEGERS, "<16 x i8>", 32, "+dotprod"),
    "int8 tiles": Instruction("aarch64.neon.smmla.v4i32.v16i8", INTEGERS, "<16 x i8>", 64, "+i8mm"),
}
INSTRUCTIONS = OF_ARM if IS_ARM else OF_X86


def shares(kernels: dict[str, Backend], threads: int, rounds: int) -> dict[str, Any]:
    """Return GFLOP/s, round by round, of each dtype's multiplies and of the instruction that they are made of."""
    turns: dict[tuple[str, str], Callable[[], float]] = {}
    for dtype, backend in kernels.items():
        turns[dtype, "peak"] = partial(peak_of, arithmetic(dtype, WIDTH), threads)
        turns[dtype, "reached"] = partial(
            together, threads, partial(multiplies, backend, dtype), layer_work()
        )
    taken = interleave(turns, rounds)
    return {
        dtype: {
            "by": arithmetic(dtype, WIDTH),
            "peak": taken[dtype, "peak"],
            "reached": taken[dtype, "reached"],
        }
        for dtype in kernels
    }


def layer_work() -> int:
    return 2 * ROWS * sum(width * K for width, K in SHAPES)


def multiplies(kernels: Backend, dtype: str) -> Callable[[], None]:
    """Return a function that multiplies once by each of a layer's weights, which are its own."""
    generator, weights = np.random.default_rng(0), []
    for width, K in SHAPES:
        x, weight = rows(ROWS, K), generator.standard_normal((width, K), np.float32)
        x[:] = generator.standard_normal((ROWS, K), np.float32)
        weights.append((x, kernels.pack(weight, np.zeros(width, np.float32), dtype)))

    def multiply() -> None:
        for x, packed in weights:
            kernels.linear(x, packed)

    return multiply


def peak_of(name: str, threads: int) -> float:
    """Return how many GFLOP/s so many threads reach with an arithmetic's instruction; float32's for those widened."""
    if name not in INSTRUCTIONS:
        return peak(threads)
    count = TURNS * (4 if is_of_tiles(INSTRUCTIONS[name]) else SUMS)
    return together(threads, lambda: partial(loop(name), TURNS), count * INSTRUCTIONS[name].operations)


def is_of_tiles(instruction: Instruction) -> bool:
    """Whether it works on registers of a matrix unit."""
    return not instruction.sums


# --- The loops --------------------------------------------------------------------------------------------


@cache
def loop(name: str) -> Any:
    """Compile a loop of an instruction: a function of how many turns it makes."""
    instruction = INSTRUCTIONS[name]
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    level = LEVELS[str(CHOSEN)]
    features = ",".join(filter(None, (level.features, instruction.features)))
    machine = llvm.Target.from_default_triple().create_target_machine(level.cpu, features, 2, jit=True)
    text = of_tiles(instruction) if is_of_tiles(instruction) else of_vectors(instruction)
    module = llvm.parse_assembly(text)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    function = ctypes.CFUNCTYPE(None, ctypes.c_int64)(engine.get_function_address("run"))
    function.held = engine
    return function


def of_vectors(instruction: Instruction) -> str:
    """Return a loop whose sums wait for nobody but themselves."""
    name, sums, factors = instruction[:3]
    starts = "\n".join(f"%s{i} = phi {sums} [zeroinitializer, %entry], [%t{i}, %loop]" for i in range(SUMS))
    step = (
        f"%x# = bitcast {sums} %s# to {factors}\n"  # so that no product is of one turn alone
        f"%p# = call {sums} @llvm.{name}({factors} %x#, {factors} %f)\n%t# = add {sums} %s#, %p#"
        if instruction.adds
        else f"%t# = call {sums} @llvm.{name}({sums} %s#, {factors} %f, {factors} %f)"
    )
    steps = "\n".join(step.replace("#", str(i)) for i in range(SUMS))
    given = f"{factors}, {factors}" if instruction.adds else f"{sums}, {factors}, {factors}"
    ends = "\n".join(f"store volatile {sums} %t{i}, ptr %place" for i in range(SUMS))
    return f"""
declare {sums} @llvm.{name}({given})
define void @run(i64 %n) {{
entry:
  %place = alloca {sums}
  %from = alloca {factors}
  store volatile {factors} zeroinitializer, ptr %from
  %f = load volatile {factors}, ptr %from
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  {starts}
  {steps}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  {ends}
  ret void
}}"""


def of_tiles(instruction: Instruction) -> str:
    """Return a loop of the four products of a micro-tile; all tiles have 16 rows of 64 bytes."""
    products = "\n".join(
        f"call void @llvm.{instruction.name}(i8 {2 * i + j}, i8 {4 + i}, i8 {6 + j})"
        for j in (0, 1)
        for i in (0, 1)
    )
    sizes = [1, 0, 0x0040004000400040, 0x0040004000400040, 0, 0, 0x1010101010101010, 0]
    zeros = "\n".join(f"call void @llvm.x86.tilezero(i8 {tile})" for tile in range(8))
    return f"""
@sizes = private constant [8 x i64] [{", ".join(f"i64 {size}" for size in sizes)}]
declare void @llvm.x86.ldtilecfg(ptr)
declare void @llvm.x86.tilerelease()
declare void @llvm.x86.tilezero(i8)
declare void @llvm.{instruction.name}(i8, i8, i8)
define void @run(i64 %n) {{
entry:
  call void @llvm.x86.ldtilecfg(ptr @sizes)
  {zeros}
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  {products}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  call void @llvm.x86.tilerelease()
  ret void
}}"""
