// Linear layers, x [rows, depth] times a packed weight [width, depth] (panels.h), rows in tiles (rows.h).
//
// float32 and bfloat16 weights: every output is one sum over depth in rising order, one fused multiply-add a term, from 0.
// int8 weights: a row is rounded to 16-bit integers with a scale of its own, as fine as sums of 32 bits allow (15 bits to
// a depth of 516, 12 to 8,000), and sums are exact. That is one and a half times the multiply-adds of float32 in a cycle
// (AVX2: products take two of four units, the additions of their pairs the others), and the error is that of the weights.
// How many rows, columns or threads work beside it changes nothing: a request gets the same bits alone and in a batch.
#pragma once

#include <omp.h>

#include <algorithm>
#include <vector>

#include "native.h"
#include "panels.h"
#include "rows.h"
#include "vector.h"

namespace BANYAN_ISA {

constexpr int DEPTH_BYTES = 1024;  // of a column: so much of a panel stays in L1 beside a tile's rows
constexpr int AHEAD = 2048;        // bytes of a panel that are fetched before they are needed
constexpr int ROW_BLOCK = 192;     // rows that stay in L2 while the panels go by

// The vectors of a step of a panel.
inline void load_step(const float* from, Floats& first, Floats& second) {
  first = load(from), second = load(from + LANES);
}
inline void load_step(const bf16* from, Floats& first, Floats& second) {
  Words both;
  std::memcpy(&both, from, sizeof both);
  first = (Floats)(both << 16), second = (Floats)(both & (0xffff0000u - Words{}));
}
inline void load_step(const int8_t* from, Pairs& first, Pairs& second) {
  first = load_pairs(from), second = load_pairs(from + 2 * LANES);
}

inline Floats splat_step(const float* from) { return splat(*from); }
inline Pairs splat_step(const int16_t* from) { return splat_pair(from); }
inline Floats add_products(Floats sum, Floats a, Floats b) { return sum + a * b; }
inline Floats load_sums(const float* from) { return load(from); }
inline Ints load_sums(const int32_t* from) { return load(from); }

// Sums of ROWS rows and PANELS panels over `depth`, added to what is in `c`. `a` is [depth / step][ROWS][step].
template <int ROWS, int PANELS, typename Input, typename Weight, typename Sum>
inline void tile(const Input* a, const Weight* b, int64_t b_stride, int64_t depth, Sum* c, int64_t c_stride) {
  constexpr int step = sizeof(Input) == 2 ? 2 : 1;
  decltype(load_sums(c)) sums[ROWS][2 * PANELS];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < 2 * PANELS; ++v) sums[r][v] = load_sums(c + r * c_stride + v * LANES);
  for (int64_t k = 0; k < depth; k += step) {
    decltype(splat_step(a)) weights[2 * PANELS];
    for (int p = 0; p < PANELS; ++p) {
      load_step(b + p * b_stride + k * PANEL, weights[2 * p], weights[2 * p + 1]);
      __builtin_prefetch((const char*)(b + p * b_stride + k * PANEL) + AHEAD);
    }
    for (int r = 0; r < ROWS; ++r) {
      const auto x = splat_step(a + k * ROWS + r * step);
      for (int v = 0; v < 2 * PANELS; ++v) sums[r][v] = add_products(sums[r][v], x, weights[v]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < 2 * PANELS; ++v) store(c + r * c_stride + v * LANES, sums[r][v]);
}

template <int ROWS, typename Input, typename Weight, typename Sum>
inline void tile_of(int64_t rows, const Input* a, const Weight* b, int64_t depth, Sum* c, int64_t c_stride) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS)
      tile<ROWS, 1>(a, b, 0, depth, c, c_stride);
    else
      tile_of<ROWS - 1>(rows, a, b, depth, c, c_stride);
  }
}

inline Floats silu(Floats x) { return x / (splat(1.0f) + exp2(x * splat(-1.44269504f))); }

inline Floats as_floats(const float* from, float) { return load(from); }
inline Floats as_floats(const int32_t* from, float scale) {
  return __builtin_convertvector(load(from), Floats) * splat(scale);
}

// Finished sums of `panels` panels, or gates' and ups' panels -> output. Never inlined: copies of it could fuse its
// multiplications and additions differently, and then a row would depend on how many there are.
template <typename Sum>
__attribute__((noinline)) inline void finish(const LinearCall& call, const float* row_scales, int64_t panel,
                                             int64_t first, int64_t rows, const Sum* sums, int64_t stride, int panels) {
  const int step = call.gated ? 2 : 1;
  const auto finished = [&](const Sum* at, float row_scale, int64_t column) {
    Floats x = as_floats(at, row_scale);
    if (call.scales) x = x * load(call.scales + column);
    if (call.bias) x = x + load(call.bias + column);
    return x;
  };
  for (int p = 0; p < panels; p += step) {
    const int64_t packed = (panel + p) * PANEL, column = packed / step;
    const int64_t columns = std::min<int64_t>(PANEL, call.width / step - column);
    for (int64_t r = 0; r < rows; ++r) {
      const Sum* at = sums + r * stride + p * PANEL;
      const float row_scale = row_scales ? row_scales[first + r] : 1.0f;
      float made[PANEL];
      for (int v = 0; v < PANEL; v += LANES) {
        Floats x = finished(at + v, row_scale, packed + v);
        if (call.gated) x = silu(x) * finished(at + PANEL + v, row_scale, packed + PANEL + v);
        store(made + v, x);
      }
      float* to = call.out + (first + r) * call.out_stride + column;
      if (columns == PANEL)
        std::memcpy(to, made, sizeof made);
      else
        std::memcpy(to, made, columns * sizeof(float));
    }
  }
}

// Up to three rows: weights go from memory through the registers once. Several panels at a time where few rows leave sums
// to spare, so that the multiply-adds do not wait for each other.
template <int ROWS, int PANELS, typename Weight, typename Input>
inline void few_rows(const LinearCall& call, const Weight* weight, const Rows<Input>& x, int64_t begin, int64_t end) {
  const int fewest = call.gated ? 2 : 1;
  const int64_t size = x.depth * PANEL;
  while (begin < end) {
    alignas(64) typename Kind<Weight>::Sum sums[ROWS * PANELS * PANEL] = {};
    const Weight* at = weight + begin * size;
    const int panels = end - begin >= PANELS ? PANELS : fewest;
    if (panels == PANELS)
      tile<ROWS, PANELS>(x.data, at, size, x.depth, sums, PANELS * PANEL);
    else
      for (int p = 0; p < panels; ++p)
        tile<ROWS, 1>(x.data, at + p * size, 0, x.depth, sums + p * PANEL, PANELS * PANEL);
    finish(call, x.scale, begin, 0, ROWS, sums, PANELS * PANEL, panels);
    begin += panels;
  }
}

// Tiles first .. last - 1 times one panel, added to c [rows, PANEL].
template <typename Input, typename Weight, typename Sum>
inline void product(const Rows<Input>& x, int64_t first, int64_t last, const Weight* panel, Sum* c, int64_t c_stride) {
  const int64_t blocks = (x.depth * sizeof(Weight) + DEPTH_BYTES - 1) / DEPTH_BYTES;
  const int64_t most = ((x.depth + blocks - 1) / blocks + 1) / 2 * 2;
  for (int64_t k = 0; k < x.depth; k += most)
    for (int64_t t = first; t < last; ++t) {
      const int64_t row = x.first(t), rows = x.first(t + 1) - row;
      tile_of<TILE>(rows, x.data + row * x.depth + k * rows, panel + k * PANEL, std::min(most, x.depth - k),
                    c + (row - x.first(first)) * c_stride, c_stride);
    }
}

template <typename Weight, typename Input>
inline void many_rows(const LinearCall& call, const Weight* weight, const Rows<Input>& x, int64_t begin, int64_t end,
                      int64_t first, int64_t last) {
  alignas(64) static thread_local typename Kind<Weight>::Sum sums[(ROW_BLOCK + TILE) * 2 * PANEL];
  const int step = call.gated ? 2 : 1;
  const int64_t row = x.first(first), rows = x.first(last) - row, size = x.depth * PANEL;
  for (int64_t panel = begin; panel < end; panel += step) {
    std::memset(sums, 0, rows * 2 * PANEL * sizeof sums[0]);
    for (int p = 0; p < step; ++p)
      product(x, first, last, weight + (panel + p) * size, sums + p * PANEL, 2 * PANEL);
    finish(call, x.scale, panel, row, rows, sums, 2 * PANEL, step);
  }
}

template <typename Weight, typename Input>
inline void multiply(const LinearCall& call, const Rows<Input>& x, int threads) {
  const Weight* weight = static_cast<const Weight*>(call.weight);
  const int step = call.gated ? 2 : 1;
  const int64_t panels = packed_panels(call.width, call.gated);
  // Shares of whole groups of 4 panels for few rows; a thread that is held up by other work gets fewer of them.
  const bool few = call.rows <= 3;
  const int64_t share = few ? std::max<int64_t>(4, panels / (threads * 4) / 4 * 4)
                            : std::max<int64_t>(step, panels / (threads * 8) / step * step);
  const int64_t shares = (panels + share - 1) / share;
  const int64_t blocks = (call.rows + ROW_BLOCK - 1) / ROW_BLOCK;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t s = 0; s < blocks * shares; ++s) {
    const int64_t block = s / shares, begin = s % shares * share, end = std::min(panels, begin + share);
    switch (call.rows) {
      case 1: few_rows<1, 4>(call, weight, x, begin, end); break;
      case 2: few_rows<2, 2>(call, weight, x, begin, end); break;
      case 3: few_rows<3, 2>(call, weight, x, begin, end); break;
      default: many_rows(call, weight, x, begin, end, x.tiles * block / blocks, x.tiles * (block + 1) / blocks);
    }
  }
}

inline void linear(const LinearCall& call, int threads) {
  if (call.rows <= 0) return;
  switch (call.kind) {
    case WEIGHT_FLOAT: return multiply<float>(call, tile_rows(call, threads), threads);
    case WEIGHT_BF16: return multiply<bf16>(call, tile_rows(call, threads), threads);
    case WEIGHT_INT8: return multiply<int8_t>(call, round_rows(call, threads), threads);
  }
}

}  // namespace BANYAN_ISA
