"""Random numbers and the exponential function, such that every implementation gets the same bits.

Only correctly rounded float32 operations (+, -, *, floor, conversions) and integer ones are used, each rounded by
itself: no library logarithm, whose last bit differs between devices, and no fused multiply-add. A GPU kernel has to be
compiled without contraction of ``a * b + c``.

Random bits are a function of (seed, position, token id, salt) alone: a counter-based generator without state.
"""

import torch

# Different uses of the same (seed, position) draw from independent streams.
SALT_ACCEPT = 0x5851F42D4C957F2D
SALT_RESIDUAL = 0x14057B7EF767814F

LN2 = 0.6931471824645996  # nearest float32
LOG2E = 1.4426950216293335
LN2_HIGH = 0.693359375  # nine bits, so that its product with a small integer is exact
LN2_LOW = -0.00021219444170128554
ROUNDER = 12582912.0  # 1.5 * 2**23
ROUNDER_BITS = 0x4B400000
SQRT_HALF_BITS = 0x3F3504F3
# log(1 + f) = f + f * f * P(f) for sqrt(1/2) <= 1 + f < sqrt(2), absolute error 4e-8
LOG_COEFFICIENTS = (
    -0.500005841255188,
    0.33335262537002563,
    -0.2496146559715271,
    0.19888277351856232,
    -0.17325995862483978,
    0.16335640847682953,
    -0.10034608095884323,
)
# exp(r) = 1 + r + r * r * P(r) for |r| <= log(2) / 2, absolute error 4e-9
EXP_COEFFICIENTS = (0.5, 0.16666516661643982, 0.04166620224714279, 0.008369073271751404, 0.0013950809370726347)

WEIGHT_BITS = 40  # a weight of 1 in fixed point; 2**22 of them fit in an int64
CACHED = 1 << 16  # elements that are worked on together
LEAST_EXPONENT = -40.0  # below exp(-27.73) a weight is 0; the argument is limited here


def key(seed: torch.Tensor, position: torch.Tensor, salt: int = 0) -> torch.Tensor:
    """The 64-bit key of a stream, [rows] int64: splitmix64 (Steele et al. 2014) of seed and position, and of a salt
    that is not 0."""
    mixed = _mix64(_mix64(seed) + position)
    return _mix64(mixed ^ _signed(salt, 64)) if salt else mixed


def gumbel(seed: torch.Tensor, position: torch.Tensor, vocab: int) -> torch.Tensor:
    """Standard Gumbel noise [rows, vocab] float32; seed and position are [rows] int64."""
    noise = torch.empty(len(seed), vocab, device=seed.device)
    tokens = torch.arange(vocab, dtype=torch.int32, device=seed.device)[None]
    # In pieces: the operations are elementwise, and their operands stay in the cache.
    step = max(CACHED // max(vocab, 1), 1)
    for rows, keys in zip(torch.split(noise, step), torch.split(key(seed, position), step), strict=True):
        for piece, ids in zip(torch.split(rows, CACHED, 1), torch.split(tokens, CACHED, 1), strict=True):
            piece.copy_(gumbel_at(keys, ids))
    return noise


def gumbel_at(key: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Standard Gumbel noise like ``tokens`` [rows or 1, n] int32, under each key [rows] int64."""
    return log(exponential(uniform(key, tokens))).neg_()


def uniform(key: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """[rows, n] float32 in (0, 1) for the token ids [rows or 1, n] int32 under each key [rows] int64.

    The halves of the key enter two rounds of murmur3's 32-bit finalizer over the token id; 31 of its bits ``b`` make
    the number (b + 1/2) / 2**31, but at most 1 - 2**-24.
    """
    return _bits(key, tokens).float().add_(0.5).mul_(2.0**-31).clamp_(max=1 - 2.0**-24)


def exact_uniform(key: torch.Tensor, token: torch.Tensor) -> torch.Tensor:
    """As ``uniform`` for one token id per key, in float64 and without the limit; all [rows] int64."""
    return _bits(key, token.to(torch.int32)[:, None])[:, 0].double().add_(0.5).mul_(2.0**-31)


def exponential(uniform: torch.Tensor) -> torch.Tensor:
    """``-log(1 - uniform)``, standard exponential, relative error about 1e-6. The uniform is near 0, where float32 is
    finest, for the smallest results: they decide who wins a draw."""
    series = uniform * 0.2
    for divisor in (0.25, 1 / 3, 0.5, 1.0):
        series.add_(_nearest32(divisor)).mul_(uniform)
    return torch.where(uniform < 0.0625, series, log(1 - uniform).neg_())


def log(x: torch.Tensor) -> torch.Tensor:
    """Natural logarithm of positive normal float32, absolute error about 1e-7 plus one rounding of the result."""
    bits = x.contiguous().view(torch.int32)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    f = (bits - (exponent << 23)).view(torch.float32) - 1
    tail = f * LOG_COEFFICIENTS[-1]
    for coefficient in LOG_COEFFICIENTS[-2:0:-1]:
        tail.add_(coefficient).mul_(f)
    tail.add_(LOG_COEFFICIENTS[0]).mul_(f * f).add_(f)
    return exponent.float().mul_(LN2).add_(tail)


def weight(x: torch.Tensor) -> torch.Tensor:
    """``exp(x)`` of float32 ``x <= 0`` in fixed point, int64: exactly 2**40 at 0, 0 below -27.73. Sums of weights are
    exact, so they do not depend on their order."""
    limited = x.clamp(min=LEAST_EXPONENT)
    # Next to this number float32 has only integers, so the sum is rounded to one, which its bits hold.
    shifted = (limited * LOG2E).add_(ROUNDER)
    shift = ROUNDER_BITS - shifted.view(torch.int32)
    exponent = shifted.sub_(ROUNDER)
    r = limited.sub_(exponent * LN2_HIGH).sub_(exponent * LN2_LOW)
    tail = r * EXP_COEFFICIENTS[-1]
    for coefficient in EXP_COEFFICIENTS[-2:0:-1]:
        tail.add_(coefficient).mul_(r)
    tail.add_(EXP_COEFFICIENTS[0]).mul_(r * r).add_(r).add_(1).mul_(2.0**30)
    return (tail.long() << (WEIGHT_BITS - 30)) >> shift.long()


def _bits(key: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    low, high = key.to(torch.int32)[:, None], (key >> 32).to(torch.int32)[:, None]
    return _mix32(_mix32(tokens ^ low).add_(high)).bitwise_and_(0x7FFFFFFF)


def _nearest32(number: float) -> float:
    return float(torch.tensor(number, dtype=torch.float32))


def _signed(constant: int, bits: int) -> int:
    """A bit pattern as the signed integer that torch takes."""
    return constant - (1 << bits) if constant >> (bits - 1) else constant


def _shift64(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Logical shift right of int64 (torch's is arithmetic)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix64(x: torch.Tensor) -> torch.Tensor:
    """splitmix64: one step of the generator and its output function; int64 products wrap."""
    x = x + _signed(0x9E3779B97F4A7C15, 64)
    x = (x ^ _shift64(x, 30)) * _signed(0xBF58476D1CE4E5B9, 64)
    x = (x ^ _shift64(x, 27)) * _signed(0x94D049BB133111EB, 64)
    return x ^ _shift64(x, 31)


def _mix32(x: torch.Tensor) -> torch.Tensor:
    """murmur3's 32-bit finalizer in place on int32; products wrap."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x.bitwise_xor_((x >> shift).bitwise_and_((1 << (32 - shift)) - 1)).mul_(_signed(factor, 32))
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))
