"""Rotary position embedding on projected heads. Knows tensors only; frequencies and scaling belong to the model."""

import torch

from kernels.reference.rope import rope as reference


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate each pair (i, i + head_dim/2) by its angle (Su et al. 2021, "RoFormer"; the half-split order of Hugging
    Face).

    x    [tokens, heads, head_dim], head_dim even
    cos  [tokens, head_dim/2], the dtype of ``x``: cosine of position times frequency, times the attention factor
    sin  as ``cos``

    Returns a new tensor like ``x``.
    """
    return reference(x, cos, sin)
