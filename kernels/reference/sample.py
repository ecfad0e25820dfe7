"""Reference of ``kernels.sample``. Any other implementation must return the same tokens, bit by bit: which tokens are
kept is decided on exact sums, and the noise is that of ``kernels.reference.noise``."""

from typing import NamedTuple

import torch

from kernels.reference.noise import gumbel, gumbel_at, key, log, weight

LEAST_TEMPERATURE = 1e-30  # smaller positive ones are taken for this, so that the inverse is finite
LEAST_MIN_P = 1e-30
CANDIDATES = 1024  # with a top_k up to here, so many of the largest logits are sorted
STEPS = 2048  # of 1/64 each; tokens in the last have no weight


class LogitBias(NamedTuple):
    """What is added to single logits; see ``kernels.sample.sample``."""

    tokens: torch.Tensor
    values: torch.Tensor


class Penalties(NamedTuple):
    """Penalties of tokens that have been seen; see ``kernels.sample.sample``."""

    history: torch.Tensor
    slot: torch.Tensor
    repetition: torch.Tensor
    presence: torch.Tensor
    frequency: torch.Tensor


class Draw(NamedTuple):
    """A row's token, and what its distribution was: token ``i`` had the probability ``weight(scaled[i]) / total`` if
    ``scaled[i] >= cut``, else 0 (``scaled``: logit minus the largest, over the temperature)."""

    token: torch.Tensor
    cut: torch.Tensor
    total: torch.Tensor


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
    """See ``kernels.sample.sample``."""
    logits = adjusted(logits, penalties, logit_bias, bitmask)
    drawn = logits.argmax(-1)
    rows = torch.nonzero(temperature > 0)[:, 0]
    if len(rows) == 0:
        return drawn
    scaled = scale(logits[rows], temperature[rows], None if min_p is None else min_p[rows])
    cut = _cut(scaled, top_k[rows], top_p[rows])
    keys = key(seed[rows], position[rows])
    if bool(cut.inside.any()):
        tokens = cut.candidates[cut.inside]
        score = scaled[cut.inside].gather(1, tokens)
        score.masked_fill_(score < cut.least[cut.inside, None], float("-inf"))
        score.add_(gumbel_at(keys[cut.inside], tokens.int()))
        # The smallest token of equal scores, as below.
        drawn[rows[cut.inside]] = torch.where(score == score.amax(-1, keepdim=True), tokens, logits.shape[-1]).amin(-1)
    for row in torch.nonzero(~cut.inside & (cut.least > float("-inf")))[:, 0].tolist():
        tokens = torch.nonzero(scaled[row] >= cut.least[row])[:, 0]
        score = scaled[row, tokens].add_(gumbel_at(keys[row, None], tokens[None].int())[0])
        drawn[rows[row]] = tokens[score.argmax()]
    whole = torch.nonzero(~cut.inside & (cut.least == float("-inf")))[:, 0]
    if len(whole):
        noise = gumbel(seed[rows[whole]], position[rows[whole]], logits.shape[-1])
        drawn[rows[whole]] = noise.add_(scaled[whole]).argmax(-1)
    return drawn


def draw_with_distribution(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
    min_p: torch.Tensor | None = None,
) -> tuple[Draw, torch.Tensor]:
    """As ``sample``, with the distribution of each row, and the weights [rows, vocab] int64 (0 where a token is cut).
    The distribution of a greedy row is meaningless."""
    token = sample(logits, temperature, top_k, top_p, seed, position, min_p=min_p)
    scaled = scale(logits, torch.where(temperature > 0, temperature, 1.0), min_p)
    cut = _cut(scaled, top_k, top_p).least
    weights = torch.where(scaled >= cut[:, None], weight(scaled), 0)
    return Draw(token, cut, weights.sum(-1)), weights


def count_tokens(history: torch.Tensor, slot: torch.Tensor, tokens: torch.Tensor) -> None:
    """See ``kernels.sample.count_tokens``."""
    twice = torch.where(tokens >= 0, 2, 0).to(history.dtype)
    history.index_put_((slot, tokens.clamp(min=0)), twice, accumulate=True)


def adjusted(
    logits: torch.Tensor, penalties: Penalties | None, logit_bias: LogitBias | None, bitmask: torch.Tensor | None
) -> torch.Tensor:
    """Logits with bias, penalties and mask applied, in this order; the argument itself if there are none."""
    if logit_bias is not None:
        used = logit_bias.tokens >= 0
        change = torch.where(used, logit_bias.values, 0)
        # scatter_add: a padding entry adds 0 to token 0
        logits = logits.scatter_add(1, torch.where(used, logit_bias.tokens, 0), change)
    if penalties is not None:
        history = penalties.history[penalties.slot].int()
        repetition = torch.where(history > 0, penalties.repetition[:, None], 1.0)
        logits = torch.where(logits > 0, logits / repetition, logits * repetition)
        generated = history >> 1
        logits = logits - penalties.frequency[:, None] * generated
        logits = logits - penalties.presence[:, None] * (generated > 0)
    if bitmask is not None:
        words = bitmask.repeat_interleave(32, dim=1)[:, : logits.shape[1]]
        bit = torch.arange(logits.shape[1], dtype=torch.int32, device=logits.device) & 31
        logits = logits.masked_fill((words >> bit) & 1 == 0, float("-inf"))
    return logits


def scale(logits: torch.Tensor, temperature: torch.Tensor, min_p: torch.Tensor | None) -> torch.Tensor:
    """(logit - largest) * (1 / temperature): at most 0, so that a tiny temperature gives -inf for the others instead of
    overflowing; -inf for tokens below min_p. A new tensor."""
    scaled = logits - logits.amax(-1, keepdim=True)
    scaled.mul_(temperature.clamp(min=LEAST_TEMPERATURE).reciprocal()[:, None])
    if min_p is not None and bool((min_p > 0).any()):
        least = torch.where(min_p > 0, log(min_p.clamp(min=LEAST_MIN_P)), float("-inf"))
        scaled.masked_fill_(scaled < least[:, None], float("-inf"))
    return scaled


class _Cut(NamedTuple):
    """Smallest kept value of each row, -inf where everything is kept; and for rows where ``inside``, that all kept
    tokens are among the candidates."""

    least: torch.Tensor
    inside: torch.Tensor
    candidates: torch.Tensor
    """[rows, few] int64; other rows' entries are meaningless."""


def _cut(scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> _Cut:
    """What top_k and top_p keep."""
    vocab = scaled.shape[-1]
    width = min(CANDIDATES, vocab)
    cut = _Cut(
        torch.full_like(scaled[:, 0], float("-inf")),
        torch.zeros_like(top_k, dtype=torch.bool),
        torch.zeros(len(scaled), width, dtype=torch.int64, device=scaled.device),
    )
    top_k = torch.where((top_k <= 0) | (top_k > vocab), vocab, top_k)
    cuts = (top_k < vocab) | (top_p < 1)
    rows = torch.nonzero(cuts & (top_k <= width))[:, 0]
    if len(rows):
        values, cut.candidates[rows] = scaled[rows].topk(width, sorted=True)
        least = _least_of_sorted(values, scaled[rows], top_k[rows], top_p[rows])
        cut.least[rows] = least
        # Equals of the last candidate may be anywhere.
        cut.inside[rows] = (least > values[:, -1]) | (width == vocab)
    for row in torch.nonzero(cuts & (top_k > width))[:, 0].tolist():
        cut.least[row] = _least_of_many(scaled[row], int(top_k[row]), float(top_p[row]))
    return cut


def _least_of_sorted(values: torch.Tensor, row: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Smallest value that each row keeps, [rows].

    values  [rows, width]: the largest of each row, sorted; ``top_k`` is at most the width
    """
    last = top_k[:, None] - 1
    least = values.gather(1, last)
    if bool((top_p < 1).any()):
        mass = weight(values).cumsum(-1)
        # What top_k keeps, with the equals of the k-th past it.
        equals = (row == least).sum(-1, keepdim=True) - (values == least).cumsum(-1).gather(1, last)
        goal = top_p[:, None].double() * (mass.gather(1, last) + equals * weight(least))
        # Kept while the weight above is below p of the total. The first always is; of equal values, the first has the
        # weight above all of them before it.
        before = torch.nn.functional.pad(mass[:, :-1], (1, 0)).double()
        kept = (before < goal).sum(-1, keepdim=True).clamp_(min=1)
        least = torch.where(top_p[:, None] < 1, torch.maximum(least, values.gather(1, kept - 1)), least)
    return least[:, 0]


def _least_of_many(row: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """As ``_least_of_sorted`` for one row [vocab] of which many may be kept: counts and weights by distance from the
    largest, then a sort within the one step where the cut lies. O(vocab)."""
    step = (row * -64.0).clamp_(max=STEPS - 1).long()
    least = torch.full_like(row[0], float("-inf"))
    if top_k < len(row):
        count = torch.bincount(step, minlength=STEPS).cumsum(0)
        place = int((count < top_k).sum())
        within = row[step == place].sort(descending=True).values
        least = within[top_k - 1 - (int(count[place - 1]) if place else 0)]
    if top_p < 1:
        weights = weight(row).masked_fill_(row < least, 0)
        mass = torch.zeros(STEPS, dtype=torch.int64, device=row.device).index_add_(0, step, weights).cumsum(0)
        goal = top_p * float(mass[-1])
        place = int((mass.double() < goal).sum())
        within = row[step == place].sort(descending=True).values
        before = weight(within).cumsum(0) - weight(within) + (mass[place - 1] if place else 0)
        kept = int((before.double() < goal).sum())
        least = torch.maximum(least, within[max(kept, 1) - 1])
    return least
