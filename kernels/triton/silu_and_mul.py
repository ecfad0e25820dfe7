"""``kernels.silu_and_mul`` on a GPU: one pass, 16 bytes a thread."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

BLOCK = 1024
WARPS = 4


def silu_and_mul(gate_up: torch.Tensor) -> torch.Tensor:
    """See ``kernels.silu_and_mul.silu_and_mul``."""
    width = gate_up.shape[-1] // 2
    rows = gate_up.reshape(-1, 2 * width).contiguous()
    out = torch.empty(len(rows), width, dtype=gate_up.dtype, device=gate_up.device)
    if out.numel():
        _silu_and_mul[(len(rows), triton.cdiv(width, BLOCK))](rows, out, width, BLOCK=BLOCK, num_warps=WARPS)
    return out.view(*gate_up.shape[:-1], width)


@triton.jit
def _silu_and_mul(GateUp, Out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = column < width
    gate = tl.load(GateUp + row * 2 * width + column, mask=valid, other=0.0).to(tl.float32)
    up = tl.load(GateUp + (row * 2 + 1) * width + column, mask=valid, other=0.0).to(tl.float32)
    # Rounded to the run dtype before the product, as the reference does.
    gated = (gate * tl.sigmoid(gate)).to(Out.dtype.element_ty).to(tl.float32)
    tl.store(Out + row * width + column, (gated * up).to(Out.dtype.element_ty), mask=valid)
