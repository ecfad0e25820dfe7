"""Reference of ``kernels.rms_norm``."""

import torch


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    """See ``kernels.rms_norm.rms_norm``."""
    if residual is not None:
        x = residual.add_(x)
    wide = x.float()
    scale = wide.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
    # The product is rounded to the run dtype before the weight, as the checkpoints were trained.
    return (wide * scale).to(x.dtype).mul_(weight)
