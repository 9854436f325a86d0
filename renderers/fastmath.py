"""How numba's kernels may rearrange arithmetic, so that every process computes the same bits.

numba optimises a parallel kernel once in the process that compiles it, and once more in what it
keeps in its cache. Sums that may be reordered ("reassoc" of LLVM's fast-math flags) can then differ
in their last bit between the first process and all later ones, and a fit that goes on in another
process would not end in the same package.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

IN_ORDER = {"nnan", "ninf", "nsz", "arcp", "contract"}
"""fastmath without reordered sums."""

IN_ORDER_WITH_NAN = {"nsz", "arcp", "contract"}
"""The same where values that are no numbers must behave as such."""

AS_WRITTEN = {"nnan", "ninf", "nsz"}
"""Neither fused sums nor reciprocals: which ones are made depends on how the code around is compiled and
on the width of vectors. `fma` says what is fused."""


@intrinsic  # type: ignore[misc]
def fma(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c of float32, rounded once."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), codegen


@intrinsic  # type: ignore[misc]
def wide(typing_context: Any) -> Any:
    """Has the function that calls this made of vectors as wide as there are, apart from its caller.

    LLVM halves them where there is AVX-512; and an inner loop within a large kernel has too few
    registers.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        attributes = builder.function.attributes
        attributes.add("noinline")
        set.add(attributes, '"prefer-vector-width"="512"')  # add() knows no attributes with values
        return context.get_dummy_value()

    return types.void(), codegen
