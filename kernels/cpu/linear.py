"""Packed weights of the C++ library (native/linear.h): packing, products, rows. Knows tensors and no layers."""

from dataclasses import dataclass

import torch

from kernels.cpu.library import WEIGHT_KINDS, LinearCall, call, loaded


@dataclass(frozen=True)
class PackedWeight:
    """``data``: panels; ``scales``, ``bias``: float32 in the order of the packed columns, padded to whole panels."""

    width: int
    depth: int
    gated: bool
    data: torch.Tensor
    scales: torch.Tensor | None
    bias: torch.Tensor | None

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return sum(part.nbytes for part in (self.data, self.scales, self.bias) if part is not None)

    def call(self) -> LinearCall:
        """The library's call with the weight filled in."""
        return LinearCall(
            weight=self.data.data_ptr(),
            kind=WEIGHT_KINDS[self.data.dtype],
            gated=self.gated,
            width=self.width,
            depth=self.depth,
            scales=None if self.scales is None else self.scales.data_ptr(),
            bias=None if self.bias is None else self.bias.data_ptr(),
        )


def pack(weight: torch.Tensor, bias: torch.Tensor | None, gated: bool, int8: bool) -> PackedWeight:
    """See ``kernels.linear.prepare``."""
    width, depth = weight.shape
    scales = None
    if int8:
        weight, scale = quantize(weight)
        scales = _columns(scale, width, gated)
    panel = _panel()
    half = width // 2 if gated else width
    panels = -(-half // panel) * (2 if gated else 1)
    steps = depth + depth % 2 if int8 else depth  # int8 panels are pairs of steps
    data = torch.empty(panels * panel * steps, dtype=weight.dtype)
    weight = weight.contiguous()
    kind = WEIGHT_KINDS[weight.dtype]
    loaded().banyan_pack(kind, weight.data_ptr(), width, depth, int(gated), data.data_ptr())
    return PackedWeight(width, depth, gated, data, scales, None if bias is None else _columns(bias, width, gated))


def quantize(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round to int8, symmetric, a scale per row: [width, depth] -> int8 of that shape, float32 [width]."""
    wide = weight.float()
    scale = wide.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny) / 127
    return (wide / scale[:, None]).round_().to(torch.int8), scale


def linear(x: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    """See ``kernels.linear.linear``."""
    out = torch.empty(len(x), weight.width // 2 if weight.gated else weight.width)
    if len(x) == 0:
        return out
    if x.dtype != torch.float32 or x.stride(1) != 1 or x.shape[1] != weight.depth:
        raise ValueError(f"rows of {weight.depth} float32 numbers are needed, not {x.dtype} {list(x.shape)}")
    told = weight.call()
    told.x, told.rows, told.x_stride = x.data_ptr(), len(x), x.stride(0)
    told.out, told.out_stride = out.data_ptr(), out.shape[1]
    call("banyan_linear", told)
    return out


def embedding(tokens: torch.Tensor, weight: PackedWeight) -> torch.Tensor:
    """See ``kernels.linear.embedding``."""
    if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < weight.width:
        raise IndexError(f"a token is outside of the vocabulary of {weight.width}")
    out = torch.empty(len(tokens), weight.depth)
    told, tokens = weight.call(), tokens.contiguous()
    loaded().banyan_embedding(told, tokens.data_ptr(), len(tokens), out.data_ptr())
    return out


def _columns(values: torch.Tensor, width: int, gated: bool) -> torch.Tensor:
    """[width] in the order of the packed columns, padded with zeros."""
    panel = _panel()
    parts = values.float().view(2 if gated else 1, -1)
    padded = torch.nn.functional.pad(parts, (0, -parts.shape[1] % panel))
    return padded.view(len(parts), -1, panel).transpose(0, 1).reshape(-1).contiguous()


def _panel() -> int:
    return int(loaded().banyan_panel())
