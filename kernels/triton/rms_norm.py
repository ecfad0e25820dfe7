"""``kernels.rms_norm`` on a GPU: one program per row, the row in registers; memory is read and written once."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from kernels.triton import early


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    """See ``kernels.rms_norm.rms_norm``; ``residual`` must be contiguous, rows have at most 65,536 elements."""
    width = x.shape[-1]
    parts = len(x) if residual is not None and x.dim() == residual.dim() + 1 else 1
    rows = x.reshape(-1, width).contiguous()
    out = torch.empty(len(rows) // parts, width, dtype=weight.dtype, device=x.device)
    if residual is not None and not residual.is_contiguous():
        raise ValueError("rms_norm: the residual is changed in place and must be contiguous")
    if len(out):
        block = triton.next_power_of_2(width)
        _rms_norm[(len(out),)](
            rows, weight, residual, out, len(out), width, eps, HAS_RESIDUAL=residual is not None, PARTS=parts,
            BLOCK=block, num_warps=warps(block), **early.options(early.may(x)),
        )  # fmt: skip
    return out.view(x.shape[1:] if parts > 1 else x.shape)


def warps(block: int) -> int:
    """Warps for a row of ``block`` elements: at least 16 bytes a thread, at most 16 registers' worth."""
    return min(max(block // 512, 1), 16)


@triton.jit(do_not_specialize=["rows"])
def _rms_norm(
    X, Weight, Residual, Out, rows, width, eps, HAS_RESIDUAL: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr,
    EARLY: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    valid = column < width
    weight = tl.load(Weight + column, mask=valid, other=0.0).to(tl.float32)
    if EARLY:
        gdc_launch_dependents()
        gdc_wait()
    x = tl.load(X + row + column, mask=valid, other=0.0).to(tl.float32)
    for part in tl.static_range(1, PARTS):
        x += tl.load(X + (part * rows).to(tl.int64) * width + row + column, mask=valid, other=0.0)
    if PARTS > 1:
        # As the product would have been rounded, had it been summed before.
        x = x.to(Out.dtype.element_ty).to(tl.float32)
    if HAS_RESIDUAL:
        x += tl.load(Residual + row + column, mask=valid, other=0.0).to(tl.float32)
        # What is normalised is the sum as it is stored.
        total = x.to(Residual.dtype.element_ty)
        tl.store(Residual + row + column, total, mask=valid)
        x = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    # The product is rounded to the run dtype before the weight, as the checkpoints were trained.
    normalised = (x * scale).to(Out.dtype.element_ty).to(tl.float32)
    tl.store(Out + row + column, (normalised * weight).to(Out.dtype.element_ty), mask=valid)
