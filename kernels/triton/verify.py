"""``kernels.reference.verify`` on a GPU, the same results bit by bit: the sampler on every row, then a scan of each
request's rows, then, with draft probabilities, a draw from the residual of the row that was rejected."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

from kernels.reference.verify import Verified
from kernels.triton.noise import SALT_ACCEPT, SALT_RESIDUAL, exponential, mix64, random_bits, stream_key, weight
from kernels.triton.sample import draw
from kernels.triton.sample_bracket import NOT_A_TOKEN, best_of, inverse_temperature, magnitude, scaled_logits

BLOCK = 4096
WARPS = 8


def verify(
    logits: torch.Tensor,
    first: torch.Tensor,
    draft: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
    *,
    draft_probabilities: torch.Tensor | None = None,
    min_p: torch.Tensor | None = None,
    bitmask: torch.Tensor | None = None,
) -> Verified:
    """See ``kernels.reference.verify.verify``."""
    rows, vocab = logits.shape
    requests = len(temperature)
    device = logits.device
    accepted = torch.empty(requests, dtype=torch.int64, device=device)
    token = torch.empty_like(accepted)
    if requests == 0:
        return Verified(accepted, token)
    # Each row gets its request's settings.
    by_row = tuple(torch.empty(rows, dtype=t.dtype, device=device) for t in (temperature, top_k, top_p, seed, position))
    min_p_by_row = None if min_p is None else torch.empty(rows, dtype=torch.float32, device=device)
    _spread[(rows,)](
        first, temperature, top_k, top_p, seed, position, min_p, *by_row, min_p_by_row, requests,
        HAS_MIN_P=min_p is not None, REQUESTS=triton.next_power_of_2(requests), num_warps=1,
    )  # fmt: skip
    with_probabilities = draft_probabilities is not None
    row_temperature, row_top_k, row_top_p, row_seed, row_position = by_row
    drawn = draw(
        logits, row_temperature, row_top_k, row_top_p, row_seed, row_position, min_p_by_row, bitmask, with_probabilities
    )
    chunks = triton.cdiv(vocab, BLOCK)
    shared = (
        logits, bitmask, first, draft, draft_probabilities, temperature, min_p, seed, position,
        *drawn, accepted, token, vocab, logits.stride(0),
        bitmask.stride(0) if bitmask is not None else 0,
        draft_probabilities.stride(0) if draft_probabilities is not None else 0,
    )  # fmt: skip
    flags = {"HAS_MASK": bitmask is not None, "HAS_MIN_P": min_p is not None, "enable_fp_fusion": False}
    _scan[(requests,)](*shared, WITH_PROBABILITIES=with_probabilities, num_warps=1, **flags)
    if with_probabilities:
        best = torch.empty(requests, chunks, dtype=torch.float32, device=device)
        best_token = torch.empty(requests, chunks, dtype=torch.int32, device=device)
        _residual[(requests, chunks)](*shared, best, best_token, chunks, BLOCK=BLOCK, num_warps=WARPS, **flags)
        _replace[(requests,)](best, best_token, token, chunks, CHUNKS=triton.next_power_of_2(chunks), num_warps=1)
    return Verified(accepted, token)


@triton.jit(do_not_specialize=["requests"])
def _spread(
    First, Temperature, TopK, TopP, Seed, Position, MinP, RowTemperature, RowTopK, RowTopP, RowSeed, RowPosition,
    RowMinP, requests, HAS_MIN_P: tl.constexpr, REQUESTS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    request = tl.arange(0, REQUESTS)
    ends = tl.load(First + 1 + request, mask=request < requests, other=0x7FFFFFFF)
    owner = tl.sum((ends <= row).to(tl.int32), 0)
    if owner < requests:
        tl.store(RowTemperature + row, tl.load(Temperature + owner))
        tl.store(RowTopK + row, tl.load(TopK + owner))
        tl.store(RowTopP + row, tl.load(TopP + owner))
        tl.store(RowSeed + row, tl.load(Seed + owner))
        tl.store(RowPosition + row, tl.load(Position + owner) + (row - tl.load(First + owner)))
        if HAS_MIN_P:
            tl.store(RowMinP + row, tl.load(MinP + owner))
    else:
        # Padding costs least when it is greedy; its result is not used.
        tl.store(RowTemperature + row, 0.0)
        tl.store(RowTopK + row, 0)
        tl.store(RowTopP + row, 1.0)
        tl.store(RowSeed + row, 0)
        tl.store(RowPosition + row, 0)
        if HAS_MIN_P:
            tl.store(RowMinP + row, 0.0)


@triton.jit
def _scan(
    Logits, Bitmask, First, Draft, Probabilities, Temperature, MinP, Seed, Position,
    Drawn, Largest, Cut, Total, Accepted, Token, vocab, stride, mask_stride, probability_stride,
    HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, WITH_PROBABILITIES: tl.constexpr,
):  # fmt: skip
    """Accepted drafts of one request. Rejected by probability, its token is -1 - the row's draw."""
    request = tl.program_id(0).to(tl.int64)
    begin = tl.load(First + request)
    last = tl.load(First + request + 1) - 1
    temperature = tl.load(Temperature + request)
    inverse = inverse_temperature(temperature)
    row = begin
    going = row < last
    while going:
        proposed = tl.load(Draft + row)
        stands = proposed == tl.load(Drawn + row)
        if WITH_PROBABILITIES:  # noqa: SIM102 (known at compile time, so by itself)
            if temperature > 0:
                s = scaled_logits(
                    Logits + row * stride, Bitmask + row * mask_stride if HAS_MASK else Bitmask, MinP, request,
                    proposed.to(tl.int32), proposed >= 0, tl.load(Largest + row), inverse, HAS_MASK, HAS_MIN_P,
                )  # fmt: skip
                w = tl.where(magnitude(s) <= tl.load(Cut + row), weight(s), 0)
                key = stream_key(tl.load(Seed + request), tl.load(Position + request) + (row - begin))
                bits = random_bits(mix64(key ^ SALT_ACCEPT), proposed.to(tl.int32))
                u = (bits.to(tl.float64) + 0.5) * 4.656612873077393e-10  # 2**-31
                q = tl.load(Probabilities + row * probability_stride + proposed).to(tl.float64)
                stands = u * q * tl.load(Total + row).to(tl.float64) < w.to(tl.float64)
        row += tl.where(stands, 1, 0)
        going = stands & (row < last)
    tl.store(Accepted + request, row - begin)
    token = tl.load(Drawn + row)
    if WITH_PROBABILITIES:
        token = tl.where((row < last) & (temperature > 0), -1 - token, token)
    tl.store(Token + request, token)


@triton.jit
def _residual(
    Logits, Bitmask, First, Draft, Probabilities, Temperature, MinP, Seed, Position,
    Drawn, Largest, Cut, Total, Accepted, Token, vocab, stride, mask_stride, probability_stride,
    Best, BestToken, chunks, HAS_MASK: tl.constexpr, HAS_MIN_P: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Best token of each chunk for the requests that ``_scan`` marked."""
    request = tl.program_id(0).to(tl.int64)
    if tl.load(Token + request) < 0:
        row = tl.load(First + request) + tl.load(Accepted + request)
        token = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        valid = token < vocab
        s = scaled_logits(
            Logits + row * stride, Bitmask + row * mask_stride if HAS_MASK else Bitmask, MinP, request, token, valid,
            tl.load(Largest + row), inverse_temperature(tl.load(Temperature + request)), HAS_MASK, HAS_MIN_P,
        )  # fmt: skip
        w = tl.where(magnitude(s) <= tl.load(Cut + row), weight(s), 0)
        q = tl.load(Probabilities + row * probability_stride + token, mask=valid, other=0.0)
        residual = tl.div_rn(w.to(tl.float32), tl.zeros([BLOCK], tl.float32) + tl.load(Total + row).to(tl.float32)) - q
        key = stream_key(tl.load(Seed + request), tl.load(Position + request) + tl.load(Accepted + request))
        noise = exponential(mix64(key ^ SALT_RESIDUAL), token)
        score, winner = best_of(tl.where(valid, tl.div_rn(tl.maximum(residual, 0.0), noise), -1.0), token)
        tl.store(Best + request * chunks + tl.program_id(1), score)
        tl.store(BestToken + request * chunks + tl.program_id(1), winner)


@triton.jit
def _replace(Best, BestToken, Token, chunks, CHUNKS: tl.constexpr):
    request = tl.program_id(0).to(tl.int64)
    plain = tl.load(Token + request)
    if plain < 0:
        chunk = tl.arange(0, CHUNKS)
        score, winner = best_of(
            tl.load(Best + request * chunks + chunk, mask=chunk < chunks, other=-1.0),
            tl.load(BestToken + request * chunks + chunk, mask=chunk < chunks, other=NOT_A_TOKEN),
        )
        # No residual at all: p and q are equal up to rounding, and the plain draw is as good.
        tl.store(Token + request, tl.where(score > 0, winner.to(tl.int64), -1 - plain))
