"""Sets of fastmath flags for numba kernels, chosen so that every process computes the same bits.

numba optimizes a parallel kernel once in the process that compiles it, and once more for its cache.
Sums that may be reordered ("reassoc" of LLVM's fast-math flags) can then differ in their last bit
between the first process and all later ones, and a fit that is resumed by another process would not
end in the same package.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

IN_ORDER = {"nnan", "ninf", "nsz", "arcp", "contract"}
"""All fastmath flags except the one that lets sums be reordered."""

IN_ORDER_WITH_NAN = {"nsz", "arcp", "contract"}
"""The set for code that must treat NaN and infinity as IEEE 754 does."""

AS_WRITTEN = {"nnan", "ninf", "nsz"}
"""Flags that allow neither fused multiply-adds nor reciprocals, because whether the compiler generates
these depends on the surrounding code and on the width of vectors. With `fma`, fusing is explicit.
"""


@intrinsic  # type: ignore[misc]
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Compute a b + c, rounded once.

    Args:
        typing_context: Passed by numba.
        a: float32 scalar.
        b: float32 scalar.
        c: float32 scalar.

    Returns:
        float32 scalar.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic  # type: ignore[misc]
def widest_vectors(typing_context: Any) -> Any:
    """Compile the function that calls this with the widest vectors and without inlining it.

    LLVM prefers vectors of half the width where there is AVX-512, and an inner loop that is inlined
    into a large kernel has too few registers.

    Args:
        typing_context: Passed by numba.

    Returns:
        Nothing, in the compiled code.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        attributes = builder.function.attributes
        attributes.add("noinline")
        # The set's own add() does not support attributes with values.
        set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), codegen
