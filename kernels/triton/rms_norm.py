"""``kernels.rms_norm`` on a GPU: one program per row, the row in registers; memory is read and written once."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, residual: torch.Tensor | None = None) -> torch.Tensor:
    """See ``kernels.rms_norm.rms_norm``; ``residual`` must be contiguous, rows have at most 65,536 elements."""
    width = x.shape[-1]
    rows = x.reshape(-1, width).contiguous()
    out = torch.empty_like(rows)
    if residual is not None and not residual.is_contiguous():
        raise ValueError("rms_norm: the residual is changed in place and must be contiguous")
    if len(rows):
        block = triton.next_power_of_2(width)
        _rms_norm[(len(rows),)](
            rows, weight, residual, out, width, eps, HAS_RESIDUAL=residual is not None, BLOCK=block,
            num_warps=warps(block),
        )  # fmt: skip
    return out.view(x.shape)


def warps(block: int) -> int:
    """Warps for a row of ``block`` elements: at least 16 bytes a thread, at most 16 registers' worth."""
    return min(max(block // 512, 1), 16)


@triton.jit
def _rms_norm(
    X, Weight, Residual, Out, width, eps, HAS_RESIDUAL: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * width
    column = tl.arange(0, BLOCK)
    valid = column < width
    x = tl.load(X + row + column, mask=valid, other=0.0).to(tl.float32)
    if HAS_RESIDUAL:
        x += tl.load(Residual + row + column, mask=valid, other=0.0).to(tl.float32)
        # What is normalised is the sum as it is stored.
        total = x.to(Residual.dtype.element_ty)
        tl.store(Residual + row + column, total, mask=valid)
        x = total.to(tl.float32)
    scale = tl.rsqrt(tl.sum(x * x, 0) / width + eps)
    weight = tl.load(Weight + column, mask=valid, other=0.0).to(tl.float32)
    # The product is rounded to the run dtype before the weight, as the checkpoints were trained.
    normalised = (x * scale).to(Out.dtype.element_ty).to(tl.float32)
    tl.store(Out + row + column, (normalised * weight).to(Out.dtype.element_ty), mask=valid)
