"""Drawing one token per row from logits. Knows tensors only; which row is whose belongs to the engine."""

import torch

from kernels.cpu import sample as native
from kernels.cpu.library import computes
from kernels.gpu import on_gpu
from kernels.reference.sample import LogitBias, Penalties
from kernels.reference.sample import count_tokens as reference_count_tokens
from kernels.reference.sample import sample as reference

__all__ = ["LogitBias", "Penalties", "count_tokens", "sample"]


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
    *,
    min_p: torch.Tensor | None = None,
    penalties: Penalties | None = None,
    logit_bias: LogitBias | None = None,
    bitmask: torch.Tensor | None = None,
) -> torch.Tensor:
    """One token id per row; a pure function of that row's arguments.

    logits       [rows, vocab] float32, finite; not changed
    temperature  [rows] float32; 0 takes the largest logit (the first of equals) after bias, penalties and mask, and
                 ignores the rest
    top_k        [rows] int64; keep the k largest logits (and all equal to the k-th); 0 or >= vocab keeps all
    top_p        [rows] float32; then keep the smallest set of most probable tokens whose mass reaches p of what is left
                 (and all equal to the last); 1 keeps all, 0 keeps the most probable
    seed         [rows] int64, any bits
    position     [rows] int64: position of the drawn token in its request
    min_p        [rows] float32; before top_k, keep tokens at least ``min_p`` times as probable as the most probable one
                 (Nguyen et al. 2024, "Turning Up the Heat"); 0 keeps all
    logit_bias   ``tokens`` [rows, n] int64 and ``values`` [rows, n] float32, added to the logits (OpenAI's
                 ``logit_bias``); a token -1 is padding, the other tokens of a row are distinct
    penalties    ``history`` [slots, vocab] int16: twice how often a token was generated, plus 1 if it is in the prompt;
                 ``slot`` [rows] int64, a row's line of ``history``; ``repetition``, ``presence`` and ``frequency``
                 [rows] float32, off at 1, 0 and 0. With ``c`` the times a token was generated:
                 logit > 0 ? logit / repetition : logit * repetition for tokens in the prompt or generated (Keskar et
                 al. 2019, "CTRL", as in Hugging Face's RepetitionPenaltyLogitsProcessor); then
                 logit - frequency * c - presence * (c > 0) (OpenAI's API reference), generated tokens only
    bitmask      [rows, ceil(vocab / 32)] int32: bit i % 32 of word i // 32 says whether token i is allowed (the layout
                 of grammar libraries). At least one token of a row must be

    The order is that of vLLM's sampler, which its users expect: bias, penalties, temperature, min_p, top_k, top_p; the
    mask goes before all of them, which is the same as after the penalties.

    Returns [rows] int64. The draw is Gumbel-max: the largest of ``logit / temperature + noise`` over the kept tokens,
    with noise from a counter-based generator keyed (seed, position, token id), so it does not depend on other rows, on
    the order of tokens, or on what was drawn before. Noise and sums are exact in the sense of
    ``kernels.reference.noise``: the same logits give the same token on every device.
    """
    if computes(logits.dtype, logits.device) and logits.dtype == torch.float32:
        return native.sample(logits, temperature, top_k, top_p, seed, position, min_p, penalties, logit_bias, bitmask)
    draw = reference
    if on_gpu(logits):
        from kernels.triton.sample import sample as draw
    return draw(
        logits,
        temperature,
        top_k,
        top_p,
        seed,
        position,
        min_p=min_p,
        penalties=penalties,
        logit_bias=logit_bias,
        bitmask=bitmask,
    )


def count_tokens(history: torch.Tensor, slot: torch.Tensor, tokens: torch.Tensor) -> None:
    """Note in ``history`` (see ``sample``), in place, that ``tokens`` [n] int64 were generated in ``slot`` [n] int64;
    -1 is no token. The count of a token is good up to 16,383."""
    count = reference_count_tokens
    if on_gpu(history):
        from kernels.triton.penalties import count_tokens as count
    count(history, slot, tokens)
