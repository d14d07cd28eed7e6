"""The table of compiled operations: of each its name, its code, and its arguments in order.

It is the one place where an operation's arguments are listed. The kernels in `source` are compiled for these arguments
and checked against them, the dispatch of a replayed plan is generated from them, and `compiled.ops` gives them by name,
to be done now or to be recorded. An argument is written ``name:kind``; without a kind it is a size.

To add an operation: its definition in `reference.ops`, a method of `Kernels`, a line here, the kernel in `source`, and
how it is called in `compiled.ops`.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = [
    "ACTIVATIONS",
    "ACTIVATION_CODES",
    "ARGUMENTS",
    "ARITHMETICS",
    "GROUPS",
    "OPERATIONS",
    "STEP",
    "Operation",
]


class Operation(NamedTuple):
    """What the work queue, the recorder and the compiler know of an operation.

    A shared one is divided into units, which threads take from the work queue; others are too small for that.
    """

    code: int
    is_shared: bool
    names: tuple[str, ...]
    kinds: tuple[str, ...]


# Kinds of arguments, all of which are 64 bits wide:
#   size     an integer
#   rows     the address of float32 (N, width), whose rows are `tuning.row_bytes` apart; 0 for none
#   floats   the address of contiguous float32, or 0
#   int32, int64   the address of contiguous integers
#   real     a float64
#   address  of memory that the caller manages
_TABLE = """
linear      shared  N K width x:rows panels:floats bias:floats residual:rows activation y:rows
pack        shared  width K weight:floats panels:floats
linear_narrow  shared  N K width arithmetic z:rows panels:address scales:floats bias:floats residual:rows \
    activation y:rows
attention_tiles  shared  D H qkv:rows offsets:int64 bias:floats span context:rows room:address room_bytes
attention   shared  D H qkv:rows offsets:int64 bias:floats span context:rows room:address room_bytes
positions   whole   S ids:int32 offsets:int64 padding y:int32
embed       whole   N D ids:int32 positions:int32 types:int32 word:floats position:floats token_type:floats y:rows
layer_norm  whole   N D x:rows weight:floats bias:floats eps:real y:rows arithmetic z:rows
mean_pool   whole   S D x:rows offsets:int64 y:rows
normalize   whole   N D x:rows y:rows
narrow      whole   N K arithmetic x:rows z:rows
"""


def _read(table: str) -> dict[str, Operation]:
    found = {}
    for code, line in enumerate(table.strip().splitlines()):
        name, how, *arguments = line.split()
        names, kinds = zip(
            *((a.partition(":")[0], a.partition(":")[2] or "size") for a in arguments), strict=True
        )
        found[name] = Operation(code, how == "shared", names, kinds)
    return found


OPERATIONS = _read(_TABLE)
ARGUMENTS = max(len(operation.names) for operation in OPERATIONS.values())
# Numbers in a step of a plan: the operation's code, its units, and its arguments.
STEP = 2 + ARGUMENTS
# Attention's units are groups of heads of one sentence: enough for a few threads, few enough to set up quickly.
GROUPS = 4

# How a multiply in fewer bits is computed: weights are widened to float32, which any processor can; or int8 to 16 bits,
# of which any x86 sums two products (pairs); or they are multiplied as they are, by instructions for sums of two or
# four products (dot), or for whole tiles, of processors that have these. Odd numbers are of integers.
ARITHMETICS = (
    *("float16", "int8", "bfloat16"),
    *("int8 pairs", "bfloat16 dot", "int8 dot", "bfloat16 tiles", "int8 tiles"),
)

# The functions of `source.vector` that `linear` ends in, by the names that checkpoints have for them. An activation is
# added in this order: its definition in `reference.activations`, its name in `checkpoint.config.HIDDEN_ACTS` (or else a
# checkpoint is refused), a line here, the function there. One that is not here is computed by its definition.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_fast": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "quick_gelu": "quick_gelu",
}
# 0 stands for none.
ACTIVATION_CODES = {function: code for code, function in enumerate(dict.fromkeys(ACTIVATIONS.values()), 1)}
