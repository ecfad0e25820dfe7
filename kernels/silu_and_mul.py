"""The gated activation of the MLP. Knows tensors only."""

import torch

from kernels.reference.silu_and_mul import silu_and_mul as reference


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """``silu(gate) * up`` (Shazeer 2020, "GLU Variants Improve Transformer").

    gate_up  [..., 2 * width]: gate in the first half of the last dimension, up in the second

    Returns [..., width] in the same dtype.
    """
    return reference(gate_up)
