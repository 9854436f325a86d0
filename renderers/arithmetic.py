"""How numba's kernels may rearrange arithmetic, so that every process computes the same bits.

numba optimises a parallel kernel once in the process that compiles it, and once more in what it
keeps in its cache. Sums that may be reordered ("reassoc" of LLVM's fast-math flags) can then differ
in their last bit between the first process and all later ones, and a fit that goes on in another
process would not end in the same package.
"""

from __future__ import annotations

IN_ORDER = {"nnan", "ninf", "nsz", "arcp", "contract"}
"""fastmath without reordered sums."""

IN_ORDER_WITH_NAN = {"nsz", "arcp", "contract"}
"""The same where values that are no numbers must behave as such."""
