"""The gated activation of the MLP. Knows tensors only."""

import torch

from kernels.gpu import on_gpu
from kernels.reference.silu_and_mul import silu_and_mul as reference


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` (Shazeer 2020, "GLU Variants Improve Transformer").

    gate_up  [..., 2 * width]: gate in the first half of the last dimension, up in the second

    Returns [..., width] in the same dtype.
    """
    if on_gpu(gate_up):
        from kernels.triton.silu_and_mul import silu_and_mul as by_triton

        return by_triton(gate_up)
    return reference(gate_up)
