// Norms, and what happens to queries, keys and values between the projection and attention. A row never depends on
// another one.
#pragma once

#include <cmath>
#include <vector>

#include "native.h"
#include "vector.h"

namespace BANYAN_ISA {

// Scale of a row: 1 / sqrt(mean of squares + eps).
inline float norm_scale(const float* x, int64_t width, float eps) {
  Floats squares = {};
  int64_t i = 0;
  for (; i + LANES <= width; i += LANES) squares += load(x + i) * load(x + i);
  float total = sum(squares);
  for (; i < width; ++i) total += x[i] * x[i];
  return 1.0f / std::sqrt(total / width + eps);
}

inline void rms_norm(const NormCall& call, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (call.rows * call.width > ALONE)
  for (int64_t r = 0; r < call.rows; ++r) {
    const float* x = call.x ? call.x + r * call.width : nullptr;
    if (call.residual) {
      float* residual = call.residual + r * call.width;
      for (int64_t i = 0; x && i < call.width; ++i) residual[i] += x[i];
      x = residual;
    }
    float* out = call.out + r * call.width;
    const float scale = norm_scale(x, call.width, call.eps);
    for (int64_t i = 0; i < call.width; ++i) out[i] = x[i] * scale * call.weight[i];
  }
}

inline void rows_finite(const FiniteCall& call, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static) if (call.rows * call.width > ALONE)
  for (int64_t r = 0; r < call.rows; ++r) {
    const float* x = call.x + r * call.stride;
    Floats sums = {};
    int64_t i = 0;
    for (; i + LANES <= call.width; i += LANES) sums += load(x + i);
    float total = sum(sums);
    for (; i < call.width; ++i) total += x[i];
    call.finite[r] = std::fabs(total) <= 3.4028235e38f;
  }
}

template <typename Kv>
inline void rotate_row(const RotateCall& call, int64_t r) {
  const Pool& pool = call.pool;
  const int64_t dim = pool.head_dim, half = dim / 2;
  const float *cosine = call.cosine + r * half, *sine = call.sine + r * half;
  const float* from = call.qkv + r * (call.heads + 2 * pool.kv_heads) * dim;
  const int64_t page = call.slots[r] / pool.page_size, offset = call.slots[r] % pool.page_size;
  Kv* keys = static_cast<Kv*>(pool.data) + (page * pool.layers + call.layer) * 2 * pool.kv_heads * pool.page_size * dim;
  Kv* values = keys + pool.kv_heads * pool.page_size * dim;
  const auto rotated = [&](const float* x, const float* weight, float* to) {
    const float scale = weight ? norm_scale(x, dim, call.eps) : 1.0f;
    for (int64_t i = 0; i < half; ++i) {
      const float a = weight ? x[i] * scale * weight[i] : x[i];
      const float b = weight ? x[i + half] * scale * weight[i + half] : x[i + half];
      to[i] = a * cosine[i] - b * sine[i];
      to[i + half] = b * cosine[i] + a * sine[i];
    }
  };
  for (int64_t h = 0; h < call.heads; ++h, from += dim)
    rotated(from, call.q_norm, call.q + (r * call.heads + h) * dim);
  static thread_local std::vector<float> key;
  key.resize(dim);
  for (int64_t h = 0; h < pool.kv_heads; ++h, from += dim) {
    rotated(from, call.k_norm, key.data());
    Kv* to = keys + h * pool.page_size * dim + offset;
    for (int64_t i = 0; i < dim; ++i) store_one(to + i * pool.page_size, key[i]);
  }
  for (int64_t h = 0; h < pool.kv_heads; ++h, from += dim)
    for (int64_t i = 0; i < dim; ++i) store_one(values + (h * pool.page_size + offset) * dim + i, from[i]);
}

inline void rotate(const RotateCall& call, int threads) {
  const int64_t size = (call.heads + 2 * call.pool.kv_heads) * call.pool.head_dim;
#pragma omp parallel for num_threads(threads) schedule(static) if (call.rows * size > ALONE)
  for (int64_t r = 0; r < call.rows; ++r) {
    if (call.pool.kind == KV_FLOAT)
      rotate_row<float>(call, r);
    else
      rotate_row<bf16>(call, r);
  }
}

}  // namespace BANYAN_ISA
