"""Speculative decoding: how many drafted tokens stand, and which token follows. Knows tensors only.

Two rules, both with exactly the distribution of tokens drawn one by one:

Without draft probabilities, the target's own draw is made at each place, as ``kernels.sample`` would; a draft stands as
long as it equals the draw, and the first draw that differs follows. So the tokens are *the same* as without
speculation, whoever drafted. For drafts without randomness (n-grams, greedy) no rule accepts more. Drafts drawn by a
draft model with the same (seed, position) as the target share its Gumbel noise and agree far more often than
independent draws would (Daliri et al. 2024, "Coupling without Communication and Drafter-Invariant Speculative
Decoding").

With the probabilities that the drafts were drawn with: rejection sampling (Leviathan et al. 2023, "Fast Inference from
Transformers via Speculative Decoding", algorithm 1; Chen et al. 2023). Draft x stands if u < p(x) / q(x); the first
that does not is replaced by a draw from max(p - q, 0), normalised. The drafts must come from another random stream than
the target's.

All randomness is keyed (seed, position, use), so a request's result does not depend on the batch.
"""

from typing import NamedTuple

import torch

from kernels.reference.noise import SALT_ACCEPT, SALT_RESIDUAL, exact_uniform, exponential, key, uniform
from kernels.reference.sample import adjusted, draw_with_distribution


class Verified(NamedTuple):
    """What each request goes on with; both [requests] int64."""

    accepted: torch.Tensor
    """How many of the drafts stand."""
    token: torch.Tensor
    """The token after them."""


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
    """Verify the drafts of a ragged batch.

    logits       [rows, vocab] float32: request r owns rows ``first[r] : first[r + 1]``, at least one; row j of them is
                 the target's output after j drafts. Rows past ``first[-1]`` are padding
    first        [requests + 1] int64, starting at 0
    draft        [rows] int64: the token proposed from this row; ignored in a request's last row
    temperature, top_k, top_p, seed, min_p
                 [requests], as in ``kernels.sample``; a greedy request accepts while the draft is the largest logit
    position     [requests] int64: position of the token drawn from the request's first row
    draft_probabilities
                 [rows, vocab] float32: the distribution that ``draft`` was drawn from; ignored in greedy requests and
                 last rows
    bitmask      [rows, ceil(vocab / 32)] int32, as in ``kernels.sample``
    """
    requests = len(temperature)
    counts = first[1:] - first[:-1]
    owner = torch.repeat_interleave(torch.arange(requests, device=first.device), counts)
    rows = len(owner)
    place = position[owner] + torch.arange(rows, device=first.device) - first[owner]
    drawn, weights = draw_with_distribution(
        adjusted(logits[:rows], None, None, None if bitmask is None else bitmask[:rows]),
        temperature[owner],
        top_k[owner],
        top_p[owner],
        seed[owner],
        place,
        None if min_p is None else min_p[owner],
    )
    last = torch.zeros(rows, dtype=torch.bool, device=first.device).index_fill_(0, first[1:] - 1, True)
    proposed = torch.where(last, 0, draft[:rows])
    stands = drawn.token == proposed
    random = temperature[owner] > 0
    if draft_probabilities is not None:
        at = proposed[:, None]
        u = exact_uniform(key(seed[owner], place, SALT_ACCEPT), proposed)
        q = draft_probabilities[:rows].gather(1, at)[:, 0].double()
        stands = torch.where(random, u * q * drawn.total < weights.gather(1, at)[:, 0], stands)
    # The first row of each request whose draft does not stand, or its last row.
    ends = torch.where(stands & ~last, rows, torch.arange(rows, device=first.device))
    row = torch.full_like(counts, rows).scatter_reduce_(0, owner, ends, "amin")
    token = drawn.token[row]
    if draft_probabilities is not None:
        rejected = torch.nonzero(random[row] & ~last[row])[:, 0]
        where = row[rejected]
        residual = weights[where].float() / drawn.total[where].float()[:, None] - draft_probabilities[where]
        # The largest of r / E with exponential E is a draw from r (the race of exponentials).
        stream = key(seed[rejected], place[where], SALT_RESIDUAL)
        tokens = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device)[None]
        best = (residual.clamp_(min=0) / exponential(uniform(stream, tokens))).max(-1)
        # No residual at all: p and q are equal up to rounding, and the plain draw is as good.
        token[rejected] = torch.where(best.values > 0, best.indices, token[rejected])
    return Verified(row - first[:-1], token)
