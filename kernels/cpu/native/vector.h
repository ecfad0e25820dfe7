// Vectors of LANES floats in GCC's vector extension, so that one source serves every instruction set. The build compiles
// it once per set with another LANES; nothing here knows what it is used for.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __AVX2__
#include <immintrin.h>
#endif

#ifndef LANES
#error "LANES (floats per vector: 4, 8 or 16) is set by the build"
#endif

namespace BANYAN_ISA {

typedef float Floats __attribute__((vector_size(LANES * 4)));
typedef int32_t Ints __attribute__((vector_size(LANES * 4)));
typedef uint32_t Words __attribute__((vector_size(LANES * 4)));
typedef uint16_t Halves __attribute__((vector_size(LANES * 2)));

// bfloat16: the upper half of a float.
struct bf16 {
  uint16_t bits;
};

inline Floats splat(float x) { return x - Floats{}; }

inline Floats load(const float* from) {
  Floats v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

// Where intrinsics stand: GCC 12 takes conversions of vectors apart that are one instruction.
inline Floats load(const bf16* from) {
#if LANES == 16
  return (Floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)), 16);
#elif LANES == 8
  return (Floats)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)from)), 16);
#else
  Halves v;
  std::memcpy(&v, from, sizeof v);
  return (Floats)(__builtin_convertvector(v, Words) << 16);
#endif
}

inline Ints load(const int32_t* from) {
  Ints v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

inline void store(int32_t* to, Ints v) { std::memcpy(to, &v, sizeof v); }

// Pairs of 16-bit integers, one pair a lane.
typedef int16_t Pairs __attribute__((vector_size(LANES * 4)));

inline Pairs load_pairs(const int8_t* from) {
#if LANES == 16
  return (Pairs)_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)from));
#elif LANES == 8
  return (Pairs)_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)from));
#else
  Pairs v;
  for (int i = 0; i < 2 * LANES; ++i) v[i] = from[i];
  return v;
#endif
}

inline Pairs splat_pair(const int16_t* from) {
  int32_t pair;
  std::memcpy(&pair, from, sizeof pair);
  return (Pairs)(pair - Ints{});
}

// sum + a[0] * b[0] + a[1] * b[1] in each lane.
inline Ints add_products(Ints sum, Pairs a, Pairs b) {
#if defined(__AVX512VNNI__)
  return (Ints)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)a, (__m512i)b);
#elif LANES == 16
  return sum + (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif LANES == 8
  return sum + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  for (int i = 0; i < LANES; ++i) sum[i] += (int32_t)a[2 * i] * b[2 * i] + (int32_t)a[2 * i + 1] * b[2 * i + 1];
  return sum;
#endif
}

inline void store(float* to, Floats v) { std::memcpy(to, &v, sizeof v); }

// Rounds to nearest, ties to even. A NaN stays a NaN: its payload is cut, and one bit of it is set.
inline uint16_t round_to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

inline void store_one(float* to, float x) { *to = x; }
inline void store_one(bf16* to, float x) { to->bits = round_to_bf16(x); }
inline float load_one(const float* from) { return *from; }
inline float load_one(const bf16* from) {
  uint32_t bits = (uint32_t)from->bits << 16;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float sum(Floats v) {
  // In halves, so that the order is the same tree for every caller.
  float x[LANES];
  std::memcpy(x, &v, sizeof x);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

inline Floats choose(Ints mask, Floats yes, Floats no) { return (Floats)(((Ints)yes & mask) | ((Ints)no & ~mask)); }
inline Ints max(Ints a, Ints b) {
  const Ints mask = a > b;
  return (a & mask) | (b & ~mask);
}
inline Floats max(Floats a, Floats b) {
#if LANES == 16
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif LANES == 8
  return (Floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
  return choose(a > b, a, b);
#endif
}

inline float max(Floats v) {
  float x[LANES];
  std::memcpy(x, &v, sizeof x);
  for (int half = LANES / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] = x[i] > x[i + half] ? x[i] : x[i + half];
  return x[0];
}

// 2**x for -127 < x < 128, relative error below 2e-7.
inline Floats exp2_within(Floats x) {
  const Floats magic = splat(12582912.0f);  // 1.5 * 2**23: adding it rounds to an integer in the low bits
  const Floats shifted = x + magic;
  const Floats part = x - (shifted - magic);  // -0.5 .. 0.5
  // Taylor's series of 2**part around 0, coefficients ln(2)**n / n!; the first term left out is below 2e-8 there.
  Floats p = splat(1.5403530393381608e-4f);
  p = p * part + splat(1.3333558146428443e-3f);
  p = p * part + splat(9.618129107628477e-3f);
  p = p * part + splat(5.550410866482158e-2f);
  p = p * part + splat(2.402265069591007e-1f);
  p = p * part + splat(6.931471805599453e-1f);
  p = p * part + splat(1.0f);
  // The magic number's own bits leave to the left.
  return (Floats)((Ints)p + ((Ints)shifted << 23));
}

// 2**x of what is at most 0 (or NaN); 0 from -126 downwards (also for -inf).
inline Floats exp2_below(Floats x) { return (Floats)((Ints)exp2_within(x) & ~(Ints)(x < splat(-126.0f))); }

// 2**x, 0 from -126 downwards (also for -inf), finite upwards (clamped at 127).
inline Floats exp2(Floats x) { return exp2_below(choose(x > splat(127.0f), splat(127.0f), x)); }

}  // namespace BANYAN_ISA
