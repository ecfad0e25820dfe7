"""Whether the Triton kernels compute for a tensor. Imports no Triton itself."""

import os
from functools import cache
from importlib.util import find_spec

import torch


@cache
def installed() -> bool:
    """Whether Triton is there."""
    return find_spec("triton") is not None


def on_gpu(tensor: torch.Tensor) -> bool:
    """Whether ``kernels.triton`` computes with this tensor: it lies on a CUDA device and Triton is installed.

    ``BANYAN_TRITON=1`` says yes for tensors on the CPU too: a dry run in Triton's interpreter (``TRITON_INTERPRET=1``),
    with ``BANYAN_NATIVE=0``, since the CPU library keeps another layout. ``BANYAN_TRITON=0`` says no everywhere.
    """
    told = os.environ.get("BANYAN_TRITON")
    return (tensor.device.type == "cuda" or told == "1") and told != "0" and installed()
