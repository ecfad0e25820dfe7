"""Linear layers and embeddings on weights that have been prepared once. Knows tensors only, no models.

On CPUs with the C++ library the weight is packed into panels, kept in its own dtype (float32, bfloat16, or int8 with a
scale per output), and multiplied with float32 rows into float32 sums. Elsewhere it is torch's product.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from kernels.cpu import linear as native
from kernels.cpu.library import computes
from kernels.gpu import on_gpu
from kernels.silu_and_mul import silu_and_mul

if TYPE_CHECKING:
    from kernels.triton.linear import Config


@dataclass(frozen=True)
class LinearWeight:
    """A weight [width, depth] ready for use. ``gated``: its first half are gates, its second half ups, and outputs are
    ``silu(gate) * up``."""

    width: int
    depth: int
    gated: bool
    weight: torch.Tensor
    bias: torch.Tensor | None
    packed: native.PackedWeight | None

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        if self.packed:
            return self.packed.size_bytes
        return self.weight.nbytes + (self.bias.nbytes if self.bias is not None else 0)


def prepare(
    weight: torch.Tensor, bias: torch.Tensor | None = None, gated: bool = False, int8: bool = False
) -> LinearWeight:
    """Make a weight ready; the caller lets go of the original.

    weight  [width, depth], contiguous
    bias    [width] or None
    int8    keep the weight as ``round(weight / scale)`` with one scale for each output, the largest magnitude / 127;
            only where the CPU library computes, else ``ValueError``
    """
    width, depth = weight.shape
    if computes(weight.dtype, weight.device):
        packed = native.pack(weight, bias, gated, int8)
        return LinearWeight(width, depth, gated, weight.new_empty(0), None, packed)
    if int8:
        raise ValueError("int8 weights need the library of CPU kernels")
    return LinearWeight(width, depth, gated, weight, bias, None)


def linear(x: torch.Tensor, weight: LinearWeight, parts: bool = False) -> torch.Tensor:
    """``x @ weight.T + bias``, through the gate where the weight is gated.

    x      [rows, depth] in the weight's dtype; float32 where the weight is packed
    parts  the result may come as [parts, rows, width] float32, whose sum over parts it is (``kernels.rms_norm`` takes
           it so)

    Returns [rows, width], or [rows, width / 2] of a gated weight, in the dtype of ``x``. Of a packed weight a row's
    result does not depend, to the bit, on the other rows or on the number of threads.
    """
    if weight.packed is not None:
        return native.linear(x, weight.packed)
    if tile := _few_rows(x, weight, parts):
        from kernels.triton.linear import few_rows

        return few_rows(x, weight.weight, weight.bias, weight.gated, tile)
    out = functional.linear(x, weight.weight, weight.bias)
    return silu_and_mul(out) if weight.gated else out


def _few_rows(x: torch.Tensor, weight: LinearWeight, parts: bool) -> "Config | None":
    """Tiles of the Triton kernel where it is there and the better one."""
    if not on_gpu(x) or x.dtype.itemsize != 2 or (weight.gated and weight.bias is not None):
        return None
    from kernels.triton import early
    from kernels.triton.linear import config

    # The copy engine fetches weights, from Hopper on.
    if x.device.type == "cuda" and not early.may(x):
        return None
    return config(len(x), weight.width // (2 if weight.gated else 1), weight.depth, weight.gated, parts)


def embedding(tokens: torch.Tensor, weight: LinearWeight) -> torch.Tensor:
    """Rows of a weight [vocab, depth] by ``tokens`` [rows] int64: [rows, depth]; of an int8 weight, as rounded."""
    if weight.packed is not None:
        return native.embedding(tokens, weight.packed)
    return functional.embedding(tokens, weight.weight)
