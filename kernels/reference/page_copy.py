"""Reference of ``kernels.triton.page_copy``."""

import torch


def page_copy(pool: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> None:
    """See ``kernels.triton.page_copy.page_copy``."""
    pool[target] = pool[source]
