"""Programmatic dependent launch (Hopper): a kernel is on the chip, and has done what does not depend on others, when
the one before it ends. Hides a launch, and the first weights' way from memory, behind kernels of a few microseconds.

A kernel with the constant EARLY says at its beginning that the next may come (``gdc_launch_dependents``), and waits for
the one before to be complete (``gdc_wait``) before it touches anything that this step computed. As every kernel waits,
all kernels before the one before are complete too.
"""

from functools import cache

import torch


@cache
def _hopper(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (9, 0)


def may(tensor: torch.Tensor) -> bool:
    """Whether kernels on the tensor's device can be launched early; Triton's interpreter knows nothing of it."""
    return tensor.device.type == "cuda" and _hopper(tensor.device)


def options(early: bool) -> dict[str, bool]:
    """Keyword arguments of a launch."""
    return {"EARLY": early, **({"launch_pdl": True} if early else {})}
