"""Host arrays on their way to a device, without waiting for it: through pinned memory, which the copy engine reads
while the host goes on. On a CPU tensors take the arrays' memory."""

import numpy as np
import torch

# A buffer is used again after so many others; the step that read it has long begun then.
BUFFERS = 64


class Staging:
    """Moves arrays to ``device`` in the order of its stream. For one thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned = device.type == "cuda"
        self._buffers: list[tuple[torch.Tensor, torch.cuda.Event]] = []
        self._next = 0

    def place(self, values: np.ndarray) -> torch.Tensor:
        """A new tensor with these values, contiguous. The array may be changed afterwards on a GPU, not on a CPU."""
        values = np.ascontiguousarray(values)
        host = torch.from_numpy(values)
        if not self._pinned or values.size == 0:
            return host.to(self._device)
        target = torch.empty(host.shape, dtype=host.dtype, device=self._device)
        self.fill(target, values)
        return target

    def fill(self, target: torch.Tensor, values: np.ndarray) -> None:
        """Put the values into ``target``, contiguous and of their size and dtype."""
        host = torch.from_numpy(np.ascontiguousarray(values)).view(-1).view(torch.uint8)
        if not self._pinned:
            target.view(-1).view(torch.uint8).copy_(host)
            return
        buffer, done = self._free(host.numel())
        buffer[: host.numel()].copy_(host)
        target.view(-1).view(torch.uint8).copy_(buffer[: host.numel()], non_blocking=True)
        done.record()

    def _free(self, size: int) -> tuple[torch.Tensor, torch.cuda.Event]:
        """A buffer of at least ``size`` bytes that nobody reads any more."""
        index, self._next = self._next, (self._next + 1) % BUFFERS
        if index < len(self._buffers):
            buffer, done = self._buffers[index]
            done.synchronize()
            if buffer.numel() >= size:
                return buffer, done
        made = (torch.empty(max(4096, 2 * size), dtype=torch.uint8, pin_memory=True), torch.cuda.Event())  # type: ignore[no-untyped-call]
        if index < len(self._buffers):
            self._buffers[index] = made
        else:
            self._buffers.append(made)
        return made
