// Drawing a token per row: kernels/sample.py says what is drawn, kernels/reference/sample.py and noise.py how, to the bit.
// Compiled without contraction of a * b + c, which would round once where the reference rounds twice.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#include "native.h"

namespace BANYAN_ISA {
namespace {

constexpr float LN2 = 0.6931471824645996f, LOG2E = 1.4426950216293335f;
constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -0.00021219444170128554f;
constexpr int32_t SQRT_HALF_BITS = 0x3F3504F3;
constexpr int WEIGHT_BITS = 40;
constexpr float LARGEST_NOISE = 22.4f;  // -log(-log(1 - 2**-32)) is 22.19
constexpr int64_t CANDIDATES = 1024;
constexpr int64_t CHUNK = 256;

inline uint64_t mix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

inline uint32_t mix32(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
  x = (x ^ (x >> 13)) * 0xC2B2AE35u;
  return x ^ (x >> 16);
}

inline float natural_log(float x) {
  int32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const int32_t exponent = (bits - SQRT_HALF_BITS) >> 23;
  bits -= exponent * (1 << 23);
  float f;
  std::memcpy(&f, &bits, sizeof f);
  f -= 1.0f;
  float tail = f * -0.10034608095884323f;
  tail = (tail + 0.16335640847682953f) * f;
  tail = (tail + -0.17325995862483978f) * f;
  tail = (tail + 0.19888277351856232f) * f;
  tail = (tail + -0.2496146559715271f) * f;
  tail = (tail + 0.33335262537002563f) * f;
  tail = (tail + -0.500005841255188f) * (f * f) + f;
  return (float)exponent * LN2 + tail;
}

inline float gumbel(uint64_t key, uint32_t token) {
  const uint32_t bits = mix32(mix32(token ^ (uint32_t)key) + (uint32_t)(key >> 32)) & 0x7FFFFFFFu;
  float u = ((float)(int32_t)bits + 0.5f) * 4.656612873077393e-10f;  // 2**-31
  u = u > 0.99999994f ? 0.99999994f : u;
  float series = u * 0.2f;
  series = (series + 0.25f) * u;
  series = (series + (float)(1.0 / 3.0)) * u;
  series = (series + 0.5f) * u;
  series = (series + 1.0f) * u;
  const float exponential = u < 0.0625f ? series : -natural_log(1.0f - u);
  return -natural_log(exponential);
}

// exp(x), x <= 0, in fixed point: 2**40 at 0.
inline int64_t weight(float x) {
  const float limited = x > -40.0f ? x : -40.0f;
  const float exponent = std::floor(limited * LOG2E + 0.5f);
  const float r = limited - exponent * LN2_HIGH - exponent * LN2_LOW;
  float tail = r * 0.0013950809370726347f;
  tail = (tail + 0.008369073271751404f) * r;
  tail = (tail + 0.04166620224714279f) * r;
  tail = (tail + 0.16666516661643982f) * r;
  tail = ((tail + 0.5f) * (r * r) + r + 1.0f) * 1073741824.0f;
  return ((int64_t)tail << (WEIGHT_BITS - 30)) >> (int64_t)-exponent;
}

// Bias, penalties and mask, in this order.
void adjust(const SampleCall& call, int64_t row, float* logits) {
  for (int64_t i = 0; i < call.bias_count; ++i) {
    const int64_t token = call.bias_tokens[row * call.bias_count + i];
    if (token >= 0) logits[token] += call.bias_values[row * call.bias_count + i];
  }
  if (call.history) {
    const int16_t* history = call.history + call.history_slot[row] * call.vocab;
    const float repetition = call.repetition[row], frequency = call.frequency[row], presence = call.presence[row];
    for (int64_t i = 0; i < call.vocab; ++i) {
      const float factor = history[i] > 0 ? repetition : 1.0f;
      float x = logits[i] > 0.0f ? logits[i] / factor : logits[i] * factor;
      const int generated = history[i] >> 1;
      x = x - frequency * (float)generated;
      logits[i] = x - presence * (generated > 0 ? 1.0f : 0.0f);
    }
  }
  if (call.mask)
    for (int64_t i = 0; i < call.vocab; ++i)
      if (!(call.mask[row * call.mask_stride + i / 32] >> (i % 32) & 1)) logits[i] = -INFINITY;
}

// Smallest value that top_k and top_p keep.
float least_kept(const float* scaled, int64_t vocab, int64_t top_k, float top_p, std::vector<float>& values) {
  float least = -INFINITY;
  values.assign(scaled, scaled + vocab);
  if (top_k < vocab) {
    std::nth_element(values.begin(), values.begin() + top_k - 1, values.end(), std::greater<float>());
    least = values[top_k - 1];
  }
  if (!(top_p < 1.0f)) return least;
  int64_t total = 0;
  for (int64_t i = 0; i < vocab; ++i) total += scaled[i] >= least ? weight(scaled[i]) : 0;
  const double goal = (double)top_p * (double)total;
  // Few values hold the nucleus as a rule: sort the largest, and more only when those were not enough.
  int64_t before = 0;
  for (int64_t sorted = 0, more = CANDIDATES;; more *= 4) {
    const auto from = values.begin() + sorted;
    const int64_t count = std::min(more, vocab - sorted);
    if (count < vocab - sorted) std::nth_element(from, from + count, values.end(), std::greater<float>());
    std::sort(from, from + count, std::greater<float>());
    for (int64_t i = sorted; i < sorted + count; ++i) {
      before += weight(values[i]);
      if ((double)before >= goal || i + 1 == vocab) return std::max(least, values[i]);
    }
    sorted += count;
  }
}

int64_t draw(const SampleCall& call, int64_t row) {
  static thread_local std::vector<float> logits, scaled, values;
  const int64_t vocab = call.vocab;
  const float* from = call.logits + row * vocab;
  if (call.bias_count || call.history || call.mask) {
    logits.assign(from, from + vocab);
    adjust(call, row, logits.data());
    from = logits.data();
  }
  float largest = -INFINITY;
  for (int64_t i = 0; i < vocab; ++i) largest = from[i] > largest ? from[i] : largest;
  if (!(call.temperature[row] > 0.0f)) return std::find(from, from + vocab, largest) - from;

  scaled.resize(vocab);
  const float inverse = 1.0f / std::max(call.temperature[row], 1e-30f);
  for (int64_t i = 0; i < vocab; ++i) scaled[i] = (from[i] - largest) * inverse;
  if (call.min_p && call.min_p[row] > 0.0f) {
    const double few = (double)call.min_p[row] * 1099511627776.0;  // 2**40
    for (int64_t i = 0; i < vocab; ++i)
      if ((double)weight(scaled[i]) < few) scaled[i] = -INFINITY;
  }
  const int64_t top_k = call.top_k[row] <= 0 || call.top_k[row] > vocab ? vocab : call.top_k[row];
  float least = -INFINITY;
  if (top_k < vocab || call.top_p[row] < 1.0f) least = least_kept(scaled.data(), vocab, top_k, call.top_p[row], values);

  const uint64_t key = mix64(mix64((uint64_t)call.seed[row]) + (uint64_t)call.position[row]);
  float best = -INFINITY, noisy[CHUNK];
  int64_t token = 0;
  for (int64_t first = 0; first < vocab; first += CHUNK) {
    const int64_t count = std::min(CHUNK, vocab - first);
    const float* at = scaled.data() + first;
    float most = -INFINITY;
    for (int64_t i = 0; i < count; ++i) most = at[i] > most ? at[i] : most;
    if (most < least || most + LARGEST_NOISE < best) continue;  // nobody here can win
    for (int64_t i = 0; i < count; ++i) noisy[i] = at[i] + gumbel(key, (uint32_t)(first + i));
    for (int64_t i = 0; i < count; ++i)
      if (at[i] >= least && noisy[i] > best) best = noisy[i], token = first + i;
  }
  return token;
}

}  // namespace

void sample(const SampleCall& call, int threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1) if (call.rows > 1)
  for (int64_t row = 0; row < call.rows; ++row) call.tokens[row] = draw(call, row);
}

}  // namespace BANYAN_ISA
