"""Penalties and bias on a GPU, before a draw: ``kernels.reference.sample``'s, the same bits."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

from kernels.reference.sample import LogitBias, Penalties

BLOCK = 4096
WARPS = 16


def adjusted(logits: torch.Tensor, penalties: Penalties | None, logit_bias: LogitBias | None) -> torch.Tensor:
    """Logits with bias and penalties, a new float32 tensor; the argument itself where there are none."""
    if penalties is None and logit_bias is None:
        return logits
    rows, vocab = logits.shape
    out = torch.empty(rows, vocab, dtype=torch.float32, device=logits.device)
    if rows == 0:
        return out
    history, slot, repetition, presence, frequency = penalties if penalties is not None else (None,) * 5
    shared = (out, logits, history, slot, repetition, presence, frequency, vocab, logits.stride(0))
    options = {"HAS_PENALTIES": penalties is not None, "enable_fp_fusion": False}
    _adjust[(rows, triton.cdiv(vocab, BLOCK))](*shared, BLOCK=BLOCK, num_warps=WARPS, **options)
    if logit_bias is not None and logit_bias.tokens.shape[1]:
        n = logit_bias.tokens.shape[1]
        tokens, values = logit_bias.tokens.contiguous(), logit_bias.values.contiguous()
        _bias[(rows,)](*shared, tokens, values, n, BLOCK=triton.next_power_of_2(n), num_warps=1, **options)
    return out


def count_tokens(history: torch.Tensor, slot: torch.Tensor, tokens: torch.Tensor) -> None:
    """See ``kernels.sample.count_tokens``. For up to a few thousand tokens: each is compared with all."""
    n = len(tokens)
    if n:
        _count_tokens[(n,)](
            history, slot, tokens, n, history.shape[1], BLOCK=max(triton.next_power_of_2(n), 32), num_warps=1
        )


@triton.jit(do_not_specialize=["n"])
def _count_tokens(History, Slot, Tokens, n, vocab, BLOCK: tl.constexpr):
    """There are no atomics on 16 bits: the first of equal entries adds for all of them."""
    entry = tl.program_id(0)
    slot = tl.load(Slot + entry)
    token = tl.load(Tokens + entry)
    other = tl.arange(0, BLOCK)
    same = (tl.load(Slot + other, mask=other < n, other=-1) == slot) & (
        tl.load(Tokens + other, mask=other < n, other=-1) == token
    )
    first = tl.min(tl.where(same, other, BLOCK), 0)
    if (token >= 0) & (first == entry):
        place = History + slot * vocab + token
        added = 2 * tl.sum(same.to(tl.int32), 0)
        tl.store(place, (tl.load(place).to(tl.int32) + added).to(tl.int16))


@triton.jit
def _penalised(x, Repetition, Presence, Frequency, row, seen):
    repetition = tl.load(Repetition + row)
    generated = seen >> 1
    x = tl.where(seen > 0, tl.where(x > 0, tl.div_rn(x, repetition), x * repetition), x)
    x = x - tl.load(Frequency + row) * generated.to(tl.float32)
    return x - tl.where(generated > 0, tl.load(Presence + row), 0.0)


@triton.jit
def _adjust(
    Out, Logits, History, Slot, Repetition, Presence, Frequency, vocab, stride,
    HAS_PENALTIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Copy of the logits with penalties."""
    row = tl.program_id(0).to(tl.int64)
    token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    valid = token < vocab
    x = tl.load(Logits + row * stride + token, mask=valid).to(tl.float32)
    if HAS_PENALTIES:
        seen = tl.load(History + tl.load(Slot + row) * vocab + token, mask=valid, other=0).to(tl.int32)
        x = _penalised(x, Repetition, Presence, Frequency, row, seen)
    tl.store(Out + row * vocab + token, x, mask=valid)


@triton.jit(do_not_specialize=["n"])
def _bias(
    Out, Logits, History, Slot, Repetition, Presence, Frequency, vocab, stride, Tokens, Values, n,
    HAS_PENALTIES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Once more for the tokens with a bias, which goes before the penalties."""
    row = tl.program_id(0).to(tl.int64)
    entry = tl.arange(0, BLOCK)
    token = tl.load(Tokens + row * n + entry, mask=entry < n, other=-1)
    valid = token >= 0
    x = tl.load(Logits + row * stride + token, mask=valid).to(tl.float32)
    x = x + tl.load(Values + row * n + entry, mask=valid)
    if HAS_PENALTIES:
        seen = tl.load(History + tl.load(Slot + row) * vocab + token, mask=valid, other=0).to(tl.int32)
        x = _penalised(x, Repetition, Presence, Frequency, row, seen)
    tl.store(Out + row * vocab + token, x, mask=valid)
