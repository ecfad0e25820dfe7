"""Reference of ``kernels.sample``, and the generator that any other implementation must reproduce bit by bit."""

import torch

CANDIDATES = 1024  # a nucleus is looked for among this many largest logits before the whole row is sorted


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
) -> torch.Tensor:
    """See ``kernels.sample.sample``."""
    drawn = logits.argmax(-1)
    rows = torch.nonzero(temperature > 0)[:, 0]
    if len(rows) == 0:
        return drawn
    # Relative to the largest, so that a tiny temperature gives -inf for the others instead of overflowing.
    scaled = logits[rows]
    scaled = (scaled - scaled.amax(-1, keepdim=True)) / temperature[rows, None]
    cut = _cut(scaled, top_k[rows], top_p[rows])
    scaled.masked_fill_(scaled < cut[:, None], float("-inf"))
    drawn[rows] = scaled.add_(gumbel(seed[rows], position[rows], logits.shape[-1])).argmax(-1)
    return drawn


def gumbel(seed: torch.Tensor, position: torch.Tensor, vocab: int) -> torch.Tensor:
    """Standard Gumbel noise [rows, vocab] float32, keyed (seed, position, token id); seed and position are [rows]
    int64.

    A 64-bit key is mixed from seed and position (splitmix64, Steele et al. 2014); its halves key two rounds of a 32-bit
    finalizer (murmur3's) over the token id, which gives 32 uniform bits ``u``; the noise is ``-log(-log((u + 1/2) /
    2**32))``.
    """
    key = _mix64(_mix64(seed) + position)
    low, high = (key & _MASK32)[:, None], _shift(key, 32)[:, None]
    bits = torch.arange(vocab, device=seed.device)[None]
    bits = _mix32(bits ^ low)
    bits = _mix32((bits + high) & _MASK32)
    # float64: in float32 the largest u would round to 1 and the noise to infinity.
    uniform = bits.double().add_(0.5).mul_(2.0**-32)
    return uniform.log_().neg_().log_().neg_().float()


def _cut(scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Smallest kept value of each row, [rows]; -inf where everything is kept. ``scaled`` is at most 0, its maximum
    0."""
    vocab = scaled.shape[-1]
    cut = torch.full_like(scaled[:, 0], float("-inf"))
    top_k = torch.where((top_k <= 0) | (top_k > vocab), vocab, top_k)
    for rows, width in _widths(scaled, top_k, top_p):
        # A row is cut alone or beside others with the same result: values are sorted, sums run over a row in order.
        values = scaled[rows].topk(width, sorted=True).values
        last = top_k[rows].clamp(max=width) - 1
        if bool((top_p[rows] < 1).any()):
            last = torch.minimum(last, _nucleus(values, scaled[rows], top_k[rows], top_p[rows]))
        cut[rows] = values.gather(1, last[:, None])[:, 0]
    return cut


def _widths(scaled: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> list[tuple[torch.Tensor, int]]:
    """Rows that need a cut, with how many sorted values they need: few where that is enough, else all."""
    vocab = scaled.shape[-1]
    width = min(CANDIDATES, vocab)
    cuts = (top_k < vocab) | (top_p < 1)
    # Is the nucleus inside the candidates? Only worth asking where top_k does not already say so.
    open_ended = cuts & (top_k > width)
    few, many = cuts & ~open_ended, torch.zeros_like(cuts)
    if bool(open_ended.any()):
        rows = torch.nonzero(open_ended)[:, 0]
        mass = scaled[rows].topk(width).values.double().exp_().sum(-1)
        inside = (top_k[rows] == vocab) & (mass > 1.001 * top_p[rows] * scaled[rows].double().exp_().sum(-1))
        few[rows[inside]] = True
        many[rows[~inside]] = True
    return [(torch.nonzero(mask)[:, 0], size) for mask, size in ((few, width), (many, vocab)) if bool(mask.any())]


def _nucleus(values: torch.Tensor, row: torch.Tensor, top_k: torch.Tensor, top_p: torch.Tensor) -> torch.Tensor:
    """Index of the last kept value of each row, [rows]: the mass before it is below p of the mass that top-k kept."""
    mass = values.double().exp_().cumsum(-1)
    limited = top_k < row.shape[-1]
    within = mass.gather(1, (top_k.clamp(max=values.shape[-1]) - 1)[:, None])
    total = torch.where(limited[:, None], within, row.double().exp_().sum(-1, keepdim=True))
    before = torch.nn.functional.pad(mass[:, :-1], (1, 0))
    kept = (before < top_p[:, None].double() * total).sum(-1)
    return torch.where(top_p < 1, kept.clamp(min=1) - 1, values.shape[-1] - 1)


_MASK32 = (1 << 32) - 1


def _signed(constant: int) -> int:
    """A 64-bit pattern as the int64 that torch takes."""
    return constant - (1 << 64) if constant >> 63 else constant


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift right of int64 (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix64(x: torch.Tensor) -> torch.Tensor:
    """splitmix64: one step of the generator and its output function; int64 products wrap."""
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift(x, 31)


def _mix32(x: torch.Tensor) -> torch.Tensor:
    """murmur3's 32-bit finalizer on int64 holding 32 bits."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & _MASK32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & _MASK32
    return x ^ (x >> 16)
