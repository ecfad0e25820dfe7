"""A named place for a tensor of a checkpoint. Fused layers expose one per part, so files are read straight into
place."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Parameter:
    """``name``: on disk; ``target``: the (view of the) tensor to fill, whose shape is the expected one."""

    name: str
    target: torch.Tensor


def split(names: list[str], sizes: list[int], fused: torch.Tensor) -> Iterator[Parameter]:
    """Parameters for consecutive rows of a fused tensor."""
    begin = 0
    for name, size in zip(names, sizes, strict=True):
        yield Parameter(name, fused[begin : begin + size])
        begin += size
