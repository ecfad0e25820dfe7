"""``kernels.reference.noise`` for Triton, the same bits. Kernels that call these must be launched with
``enable_fp_fusion=False``."""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from kernels.reference import noise as reference

SALT_ACCEPT = tl.constexpr(reference.SALT_ACCEPT)
SALT_RESIDUAL = tl.constexpr(reference.SALT_RESIDUAL)
LN2 = tl.constexpr(reference.LN2)
LOG2E = tl.constexpr(reference.LOG2E)
LN2_HIGH = tl.constexpr(reference.LN2_HIGH)
LN2_LOW = tl.constexpr(reference.LN2_LOW)
ROUNDER = tl.constexpr(reference.ROUNDER)
ROUNDER_BITS = tl.constexpr(reference.ROUNDER_BITS)
SQRT_HALF_BITS = tl.constexpr(reference.SQRT_HALF_BITS)
WEIGHT_SHIFT = tl.constexpr(reference.WEIGHT_BITS - 30)
LEAST_EXPONENT = tl.constexpr(reference.LEAST_EXPONENT)
L0, L1, L2, L3, L4, L5, L6 = (tl.constexpr(value) for value in reference.LOG_COEFFICIENTS)
E0, E1, E2, E3, E4 = (tl.constexpr(value) for value in reference.EXP_COEFFICIENTS)


@triton.jit
def mix64(x):
    """splitmix64 of uint64."""
    x = x + 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def mix32(x):
    """murmur3's finalizer of uint32."""
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def stream_key(seed, position):
    """Key of (seed, position), uint64; both are int64."""
    return mix64(mix64(seed.to(tl.uint64, bitcast=True)) + position.to(tl.uint64, bitcast=True))


@triton.jit
def random_bits(key, token):
    """31 random bits for each token id, int32; ``key`` is a uint64 scalar."""
    low = (key & 0xFFFFFFFF).to(tl.uint32)
    high = (key >> 32).to(tl.uint32)
    bits = mix32(token.to(tl.uint32, bitcast=True) ^ low)
    return (mix32(bits + high) & 0x7FFFFFFF).to(tl.int32, bitcast=True)


@triton.jit
def log(x):
    """Natural logarithm of positive normal float32."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    tail = f * L6
    tail = (tail + L5) * f
    tail = (tail + L4) * f
    tail = (tail + L3) * f
    tail = (tail + L2) * f
    tail = (tail + L1) * f
    tail = (tail + L0) * (f * f) + f
    return exponent.to(tl.float32) * LN2 + tail


@triton.jit
def exponential(key, token):
    """Standard exponential noise for each token id, float32."""
    uniform = (random_bits(key, token).to(tl.float32) + 0.5) * 4.656612873077393e-10  # 2**-31
    uniform = tl.minimum(uniform, 0.9999999403953552)  # 1 - 2**-24
    series = uniform * 0.2
    series = (series + 0.25) * uniform
    series = (series + 0.3333333432674408) * uniform
    series = (series + 0.5) * uniform
    series = (series + 1.0) * uniform
    return tl.where(uniform < 0.0625, series, -log(1.0 - uniform))


@triton.jit
def gumbel(key, token):
    """Standard Gumbel noise for each token id, float32."""
    return -log(exponential(key, token))


@triton.jit
def weight(x):
    """``exp(x)`` of float32 ``x <= 0`` in fixed point, int64; 2**40 is 1."""
    limited = tl.maximum(x, LEAST_EXPONENT)
    shifted = limited * LOG2E + ROUNDER
    exponent = shifted - ROUNDER
    r = limited - exponent * LN2_HIGH
    r = r - exponent * LN2_LOW
    tail = r * E4
    tail = (tail + E3) * r
    tail = (tail + E2) * r
    tail = (tail + E1) * r
    tail = (tail + E0) * (r * r) + r
    fixed = ((tail + 1.0) * 1073741824.0).to(tl.int32).to(tl.int64)  # 2**30
    return (fixed << WEIGHT_SHIFT) >> (-(shifted.to(tl.int32, bitcast=True) - ROUNDER_BITS)).to(tl.int64)
