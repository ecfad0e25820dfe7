"""Small results on their way from a device to the host: copied behind the step that makes them, waited for later."""

import numpy as np
import torch


class Landing:
    """Copies of ``tensors``, which may be written again by what the device does next."""

    def __init__(self, *tensors: torch.Tensor) -> None:
        self._done: torch.cuda.Event | None = None
        if tensors[0].device.type != "cuda":
            self._hosts = list(tensors)
            return
        # torch keeps freed pinned memory for the next one of that size.
        self._hosts = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for host, tensor in zip(self._hosts, tensors, strict=True):
            host.copy_(tensor, non_blocking=True)
        self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._done.record()

    def wait(self) -> list[np.ndarray]:
        """The values."""
        if self._done is not None:
            self._done.synchronize()
        return [host.numpy() for host in self._hosts]
