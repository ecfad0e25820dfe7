"""Reference of ``kernels.rope``."""

import torch


def rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """See ``kernels.rope.rope``."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    rotated = torch.empty_like(x, memory_format=torch.contiguous_format)
    half = first.shape[-1]
    torch.mul(first, cos, out=rotated[..., :half]).sub_(second * sin)
    torch.mul(second, cos, out=rotated[..., half:]).add_(first * sin)
    return rotated
