// Linear layers, x [rows, depth] times a packed weight [width, depth].
//
// Packing: panels of PANEL output columns, each [depth][PANEL], so that a step over depth reads whole vectors. Columns
// past the width are zeros. In bfloat16 the two vectors of a panel alternate number by number: as 32-bit words, the first
// vector is in the lower halves and the second in the upper ones, and two vectors are widened by a shift and a mask. int8
// panels are [depth / 2][PANEL][2], for an instruction that multiplies pairs.
//
// float32 and bfloat16 weights: every output is one sum over depth in rising order, one fused multiply-add a term, from 0.
// int8 weights: a row is rounded to 16-bit integers with a scale of its own, as fine as sums of 32 bits allow (15 bits to
// a depth of 516, 12 to 8,000), and sums are exact. That is twice the multiply-adds of float32 in a cycle, and the error
// is that of the weights. How many rows, columns or threads work beside it changes nothing: a request gets the same bits
// alone and in a batch.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "native.h"
#include "vector.h"

namespace BANYAN_ISA {

constexpr int PANEL = 2 * LANES;
constexpr int TILE = LANES == 16 ? 14 : 6;  // rows whose sums, two vectors each, fill the registers
constexpr int DEPTH_BLOCK = 256;            // so that a panel's part stays in L1 beside the rows'
constexpr int AHEAD = 2048;                 // bytes of a panel that are fetched before they are needed
constexpr int ROW_BLOCK = 96;               // rows whose inputs stay in L2 while the panels go by

// What rows are multiplied as, and summed in.
template <typename Weight>
struct Kind {
  typedef float Input;
  typedef float Sum;
};
template <>
struct Kind<int8_t> {
  typedef int16_t Input;
  typedef int32_t Sum;
};

// Rows as they are multiplied; `scale` by row, null for 1.
template <typename Input>
struct Inputs {
  const Input* data;
  int64_t stride;
  const float* scale;
};

// The two vectors of a step of a panel.
inline void load_pair(const float* from, Floats& first, Floats& second) {
  first = load(from), second = load(from + LANES);
}
inline void load_pair(const bf16* from, Floats& first, Floats& second) {
  Words both;
  std::memcpy(&both, from, sizeof both);
  first = (Floats)(both << 16), second = (Floats)(both & (0xffff0000u - Words{}));
}

// Sums of ROWS rows and PANELS panels over `depth` steps, added to what is in `c`.
template <int ROWS, int PANELS, typename Weight>
inline void tile(const float* a, int64_t a_stride, const Weight* b, int64_t b_stride, int64_t depth, float* c,
                 int64_t c_stride) {
  Floats sums[ROWS][2 * PANELS];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < 2 * PANELS; ++v) sums[r][v] = load(c + r * c_stride + v * LANES);
  for (int64_t k = 0; k < depth; ++k) {
    Floats weights[2 * PANELS];
    for (int p = 0; p < PANELS; ++p) {
      load_pair(b + p * b_stride + k * PANEL, weights[2 * p], weights[2 * p + 1]);
      __builtin_prefetch((const char*)(b + p * b_stride + k * PANEL) + AHEAD);
    }
    for (int r = 0; r < ROWS; ++r) {
      const Floats x = splat(a[r * a_stride + k]);
      for (int v = 0; v < 2 * PANELS; ++v) sums[r][v] += x * weights[v];
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < 2 * PANELS; ++v) store(c + r * c_stride + v * LANES, sums[r][v]);
}

// The same of integers, pairs of steps at a time; `depth` is even.
template <int ROWS, int PANELS>
inline void tile(const int16_t* a, int64_t a_stride, const int8_t* b, int64_t b_stride, int64_t depth, int32_t* c,
                 int64_t c_stride) {
  Ints sums[ROWS][2 * PANELS];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < 2 * PANELS; ++v) sums[r][v] = load(c + r * c_stride + v * LANES);
  for (int64_t k = 0; k < depth; k += 2) {
    Pairs weights[2 * PANELS];
    for (int v = 0; v < 2 * PANELS; ++v)
      weights[v] = load_pairs(b + v / 2 * b_stride + k * PANEL + v % 2 * 2 * LANES);
    for (int p = 0; p < PANELS; ++p) __builtin_prefetch((const char*)(b + p * b_stride + k * PANEL) + AHEAD);
    for (int r = 0; r < ROWS; ++r) {
      const Pairs x = splat_pair(a + r * a_stride + k);
      for (int v = 0; v < 2 * PANELS; ++v) sums[r][v] = add_products(sums[r][v], x, weights[v]);
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < 2 * PANELS; ++v) store(c + r * c_stride + v * LANES, sums[r][v]);
}

template <int ROWS, int PANELS, typename Input, typename Weight, typename Sum>
inline void tiles(int64_t rows, const Input* a, int64_t a_stride, const Weight* b, int64_t b_stride, int64_t depth,
                  Sum* c, int64_t c_stride) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS)
      tile<ROWS, PANELS>(a, a_stride, b, b_stride, depth, c, c_stride);
    else
      tiles<ROWS - 1, PANELS>(rows, a, a_stride, b, b_stride, depth, c, c_stride);
  }
}

// c [rows, PANEL] += a [rows, depth] times b [depth, PANEL], any number of rows.
template <typename Input, typename Weight, typename Sum>
inline void product(int64_t rows, const Input* a, int64_t a_stride, const Weight* b, int64_t depth, Sum* c,
                    int64_t c_stride) {
  // As even as possible: 16 rows are 6 + 5 + 5, not 6 + 6 + 4, since small tiles wait for their own sums.
  for (int64_t left = (rows + TILE - 1) / TILE; rows > 0; --left) {
    const int64_t now = (rows + left - 1) / left;
    tiles<TILE, 1>(now, a, a_stride, b, 0, depth, c, c_stride);
    a += now * a_stride, c += now * c_stride, rows -= now;
  }
}

// Row-major [width, depth] -> panels. With `gated` the first half of the rows are gates and the second half ups, and
// panels of the two alternate.
inline int64_t packed_row(int64_t panel, int column, int64_t width, bool gated) {
  if (!gated) {
    const int64_t row = panel * PANEL + column;
    return row < width ? row : -1;
  }
  const int64_t row = panel / 2 * PANEL + column;
  return row < width / 2 ? row + panel % 2 * (width / 2) : -1;
}

inline int64_t packed_panels(int64_t width, bool gated) {
  return gated ? (width / 2 + PANEL - 1) / PANEL * 2 : (width + PANEL - 1) / PANEL;
}

// Steps of a panel: int8 ones are pairs.
inline int64_t packed_depth(int64_t bytes, int64_t depth) { return bytes == 1 ? (depth + 1) / 2 * 2 : depth; }

inline Floats silu(Floats x) { return x / (splat(1.0f) + exp2(x * splat(-1.44269504f))); }

// Integer sums of a row -> numbers, in place.
inline void rescale(int32_t* sums, int64_t count, float scale) {
  for (int64_t i = 0; i < count; ++i) {
    const float x = (float)sums[i] * scale;
    std::memcpy(sums + i, &x, sizeof x);
  }
}

// One panel's (or a gate's and an up panel's) finished sums -> output. Never inlined: copies of it could fuse its
// multiplication and addition differently, and then a row would depend on how many there are.
__attribute__((noinline)) inline void finish(const LinearCall& call, int64_t panel, int64_t first, int64_t rows,
                                             float* sums, int64_t stride, int panels) {
  for (int64_t p = panel; p < panel + panels; ++p)
    for (int64_t r = 0; r < rows; ++r) {
      float* at = sums + r * stride + (p - panel) * PANEL;
      for (int v = 0; v < PANEL; v += LANES) {
        Floats x = load(at + v);
        if (call.scales) x = x * load(call.scales + p * PANEL + v);
        if (call.bias) x = x + load(call.bias + p * PANEL + v);
        store(at + v, x);
      }
    }
  const int step = call.gated ? 2 : 1;
  for (int64_t p = panel; p < panel + panels; p += step) {
    const int64_t column = p / step * PANEL;
    const int64_t columns = std::min<int64_t>(PANEL, call.width / step - column);
    for (int64_t r = 0; r < rows; ++r) {
      float* at = sums + r * stride + (p - panel) * PANEL;
      if (call.gated)
        for (int v = 0; v < PANEL; v += LANES) store(at + v, silu(load(at + v)) * load(at + PANEL + v));
      std::memcpy(call.out + (first + r) * call.out_stride + column, at, columns * sizeof(float));
    }
  }
}

inline void finish(const LinearCall& call, const float*, int64_t panel, int64_t first, int64_t rows, float* sums,
                   int64_t stride, int panels) {
  finish(call, panel, first, rows, sums, stride, panels);
}

inline void finish(const LinearCall& call, const float* scale, int64_t panel, int64_t first, int64_t rows,
                   int32_t* sums, int64_t stride, int panels) {
  for (int64_t r = 0; r < rows; ++r) rescale(sums + r * stride, panels * PANEL, scale[first + r]);
  finish(call, panel, first, rows, reinterpret_cast<float*>(sums), stride, panels);
}

// A few rows: weights go from memory through the registers once. Several panels at a time where few rows leave sums to
// spare, so that the multiply-adds do not wait for each other.
template <int ROWS, int PANELS, typename Weight, typename Input>
inline void few_rows(const LinearCall& call, const Weight* weight, Inputs<Input> x, int64_t depth, int64_t begin,
                     int64_t end) {
  const int fewest = call.gated ? 2 : 1;
  while (begin < end) {
    alignas(64) typename Kind<Weight>::Sum sums[ROWS * PANELS * PANEL] = {};
    const Weight* at = weight + begin * depth * PANEL;
    const int panels = end - begin >= PANELS ? PANELS : fewest;
    if (panels == PANELS)
      tile<ROWS, PANELS>(x.data, x.stride, at, depth * PANEL, depth, sums, PANELS * PANEL);
    else
      for (int p = 0; p < panels; ++p)
        tile<ROWS, 1>(x.data, x.stride, at + p * depth * PANEL, 0, depth, sums + p * PANEL, PANELS * PANEL);
    finish(call, x.scale, begin, 0, ROWS, sums, PANELS * PANEL, panels);
    begin += panels;
  }
}

template <typename Weight, typename Input>
inline void many_rows(const LinearCall& call, const Weight* weight, Inputs<Input> x, int64_t depth, int64_t begin,
                      int64_t end, int64_t first, int64_t rows) {
  alignas(64) static thread_local typename Kind<Weight>::Sum sums[ROW_BLOCK * 2 * PANEL];
  const int step = call.gated ? 2 : 1;
  for (int64_t panel = begin; panel < end; panel += step) {
    std::memset(sums, 0, rows * 2 * PANEL * sizeof sums[0]);
    for (int p = 0; p < step; ++p)
      for (int64_t k = 0; k < depth; k += DEPTH_BLOCK)
        product(rows, x.data + first * x.stride + k, x.stride, weight + ((panel + p) * depth + k) * PANEL,
                std::min<int64_t>(DEPTH_BLOCK, depth - k), sums + p * PANEL, 2 * PANEL);
    finish(call, x.scale, panel, first, rows, sums, 2 * PANEL, step);
  }
}

template <typename Weight, typename Input>
inline void multiply_rows(const LinearCall& call, const Weight* weight, Inputs<Input> x, int64_t depth, int threads) {
  const int step = call.gated ? 2 : 1;
  const int64_t panels = packed_panels(call.width, call.gated);
  if (call.rows <= (LANES == 16 ? 12 : 6)) {
    // Shares of whole groups of 4 panels; a thread that is held up by other work gets fewer of them.
    const int64_t share = std::max<int64_t>(4, panels / (threads * 4) / 4 * 4);
    const int64_t shares = (panels + share - 1) / share;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
    for (int64_t s = 0; s < shares; ++s) {
      const int64_t begin = s * share, end = std::min(panels, begin + share);
      switch (call.rows) {
        case 1: few_rows<1, 4>(call, weight, x, depth, begin, end); break;
        case 2: few_rows<2, 2>(call, weight, x, depth, begin, end); break;
        case 3: few_rows<3, 2>(call, weight, x, depth, begin, end); break;
        default: many_rows(call, weight, x, depth, begin, end, 0, call.rows);
      }
    }
    return;
  }
  const int64_t blocks = (call.rows + ROW_BLOCK - 1) / ROW_BLOCK;
  const int64_t size = (call.rows + blocks - 1) / blocks;
  const int64_t share = std::max<int64_t>(step, panels / (threads * 8) / step * step);
  const int64_t shares = (panels + share - 1) / share;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t s = 0; s < blocks * shares; ++s) {
    const int64_t first = s / shares * size, begin = s % shares * share;
    many_rows(call, weight, x, depth, begin, std::min(panels, begin + share), first, std::min(size, call.rows - first));
  }
}

// One row -> integers; returns the scale. What is not finite makes the scale, and so the whole row of outputs, a NaN.
inline float round_row(const float* x, int64_t depth, float most, int16_t* to) {
  float largest = 0.0f;
  bool finite = true;
  for (int64_t k = 0; k < depth; ++k) {
    const float size = std::fabs(x[k]);
    largest = size > largest ? size : largest;
    finite &= size <= 3.4028235e38f;
  }
  const float factor = finite && largest > 1e-30f ? most / largest : 0.0f;
  if (!finite) std::fill_n(to, depth, 0);
  for (int64_t k = 0; finite && k < depth; ++k) {
    // Adding 1.5 * 2**23 leaves the nearest integer in the low bits.
    const float shifted = x[k] * factor + 12582912.0f;
    int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    to[k] = (int16_t)(bits - 0x4B400000);
  }
  return finite ? largest / most : NAN;
}

inline void multiply_rounded(const LinearCall& call, int threads) {
  // Kept by the calling thread; the others read it.
  static thread_local std::vector<int16_t> rounded;
  static thread_local std::vector<float> scale;
  const int64_t depth = (call.depth + 1) / 2 * 2;
  rounded.resize(call.rows * depth), scale.resize(call.rows);
  int16_t* to = rounded.data();
  float* scales = scale.data();
  const float most = std::floor(std::min(32767.0, 2147483647.0 / (127.0 * call.depth)));
#pragma omp parallel for num_threads(threads) schedule(static) if (call.rows * depth > 16384)
  for (int64_t r = 0; r < call.rows; ++r) {
    scales[r] = round_row(call.x + r * call.x_stride, call.depth, most, to + r * depth);
    if (depth > call.depth) to[r * depth + call.depth] = 0;
  }
  multiply_rows(call, static_cast<const int8_t*>(call.weight), Inputs<int16_t>{to, depth, scales}, depth, threads);
}

inline void linear(const LinearCall& call, int threads) {
  if (call.rows <= 0) return;
  const Inputs<float> x{call.x, call.x_stride, nullptr};
  switch (call.kind) {
    case WEIGHT_FLOAT: return multiply_rows(call, static_cast<const float*>(call.weight), x, call.depth, threads);
    case WEIGHT_BF16: return multiply_rows(call, static_cast<const bf16*>(call.weight), x, call.depth, threads);
    case WEIGHT_INT8: return multiply_rounded(call, threads);
  }
}

// Where step k of a panel's column stands in the panel.
template <typename Weight>
inline int64_t place(int64_t k, int column) {
  if (sizeof(Weight) == 1) return k / 2 * 2 * PANEL + 2 * column + k % 2;
  if (sizeof(Weight) == 2) return k * PANEL + (column < LANES ? 2 * column : 2 * (column - LANES) + 1);
  return k * PANEL + column;
}

template <typename Weight>
inline void pack(const Weight* from, int64_t width, int64_t depth, bool gated, Weight* to) {
  const int64_t panels = packed_panels(width, gated), steps = packed_depth(sizeof(Weight), depth);
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < panels; ++panel)
    for (int column = 0; column < PANEL; ++column) {
      const int64_t row = packed_row(panel, column, width, gated);
      Weight* at = to + panel * steps * PANEL;
      for (int64_t k = 0; k < steps; ++k)
        at[place<Weight>(k, column)] = row < 0 || k >= depth ? Weight{} : from[row * depth + k];
    }
}

inline void pack(int kind, const void* from, int64_t width, int64_t depth, bool gated, void* to) {
  switch (kind) {
    case WEIGHT_FLOAT: return pack(static_cast<const float*>(from), width, depth, gated, static_cast<float*>(to));
    case WEIGHT_BF16: return pack(static_cast<const bf16*>(from), width, depth, gated, static_cast<bf16*>(to));
    case WEIGHT_INT8: return pack(static_cast<const int8_t*>(from), width, depth, gated, static_cast<int8_t*>(to));
  }
}

inline float number(const int8_t* at) { return *at; }
template <typename Weight>
inline float number(const Weight* at) { return load_one(at); }

template <typename Weight>
inline void embedding(const LinearCall& table, const Weight* weight, const int64_t* tokens, int64_t rows, float* out) {
  const int64_t size = packed_depth(sizeof(Weight), table.depth) * PANEL;
  for (int64_t r = 0; r < rows; ++r) {
    const Weight* at = weight + tokens[r] / PANEL * size;
    const float scale = table.scales ? table.scales[tokens[r]] : 1.0f;
    for (int64_t k = 0; k < table.depth; ++k)
      out[r * table.depth + k] = scale * number(at + place<Weight>(k, tokens[r] % PANEL));
  }
}

inline void embedding(const LinearCall& table, const int64_t* tokens, int64_t rows, float* out) {
  switch (table.kind) {
    case WEIGHT_FLOAT: return embedding(table, static_cast<const float*>(table.weight), tokens, rows, out);
    case WEIGHT_BF16: return embedding(table, static_cast<const bf16*>(table.weight), tokens, rows, out);
    case WEIGHT_INT8: return embedding(table, static_cast<const int8_t*>(table.weight), tokens, rows, out);
  }
}

}  // namespace BANYAN_ISA
