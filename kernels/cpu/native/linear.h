// Linear layers, x [rows, depth] times a packed weight [width, depth]: float32 sums whatever the weight is stored in.
//
// Packing: panels of PANEL output columns, each [depth][PANEL], so that a step over depth reads whole vectors. Columns
// past the width are zeros. In bfloat16 the two vectors of a panel alternate number by number: as 32-bit words, the first
// vector is in the lower halves and the second in the upper ones, and two vectors are widened by a shift and a mask.
//
// Every output is one sum over depth in rising order, one fused multiply-add a term, from 0. How many rows, columns or
// threads work beside it changes nothing: a request gets the same bits alone and in a batch.
#pragma once

#include <omp.h>

#include <algorithm>

#include "native.h"
#include "vector.h"

namespace BANYAN_ISA {

constexpr int PANEL = 2 * LANES;
constexpr int TILE = LANES == 16 ? 14 : 6;  // rows whose sums, two vectors each, fill the registers
constexpr int DEPTH_BLOCK = 256;            // steps of a widened panel: 16 KiB at 8 lanes, beside the rows in L1
constexpr int ROW_BLOCK = 96;               // rows for which a panel is widened once; their inputs stay in L2

// The two vectors of a step of a panel.
template <typename Weight>
inline void load_pair(const Weight* from, Floats& first, Floats& second) {
  first = load(from), second = load(from + LANES);
}
inline void load_pair(const bf16* from, Floats& first, Floats& second) {
  Words both;
  std::memcpy(&both, from, sizeof both);
  first = (Floats)(both << 16), second = (Floats)(both & (0xffff0000u - Words{}));
}

// Where a column of a panel stands in a step.
template <typename Weight>
inline int place(int column) {
  return sizeof(Weight) != sizeof(bf16) ? column : column < LANES ? 2 * column : 2 * (column - LANES) + 1;
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
    for (int p = 0; p < PANELS; ++p) load_pair(b + p * b_stride + k * PANEL, weights[2 * p], weights[2 * p + 1]);
    for (int r = 0; r < ROWS; ++r) {
      const Floats x = splat(a[r * a_stride + k]);
      for (int v = 0; v < 2 * PANELS; ++v) sums[r][v] += x * weights[v];
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < 2 * PANELS; ++v) store(c + r * c_stride + v * LANES, sums[r][v]);
}

template <int ROWS, int PANELS, typename Weight>
inline void tiles(int64_t rows, const float* a, int64_t a_stride, const Weight* b, int64_t b_stride, int64_t depth,
                  float* c, int64_t c_stride) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS)
      tile<ROWS, PANELS>(a, a_stride, b, b_stride, depth, c, c_stride);
    else
      tiles<ROWS - 1, PANELS>(rows, a, a_stride, b, b_stride, depth, c, c_stride);
  }
}

// c [rows, PANEL] += a [rows, depth] times b [depth, PANEL], any number of rows.
template <typename Weight>
inline void product(int64_t rows, const float* a, int64_t a_stride, const Weight* b, int64_t depth, float* c,
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

inline Floats silu(Floats x) { return x / (splat(1.0f) + exp2(x * splat(-1.44269504f))); }

// One panel's (or a gate's and an up panel's) finished sums -> output.  Never inlined: copies of it could fuse its
// multiplication and addition differently, and then a row would depend on how many there are.
__attribute__((noinline)) inline void finish(const LinearCall& call, int64_t panel, int64_t first, int64_t rows, float* sums, int64_t stride,
                   int panels) {
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

// A few rows: weights go from memory through the registers once. Several panels at a time where few rows leave sums to
// spare, so that the multiply-adds do not wait for each other.
template <int ROWS, int PANELS, typename Weight>
inline void few_rows(const LinearCall& call, const Weight* weight, int64_t begin, int64_t end) {
  for (int64_t panel = begin; panel < end;) {
    alignas(64) float sums[ROWS * PANELS * PANEL] = {};
    const Weight* at = weight + panel * call.depth * PANEL;
    if (end - panel >= PANELS) {
      tile<ROWS, PANELS>(call.x, call.x_stride, at, call.depth * PANEL, call.depth, sums, PANELS * PANEL);
      finish(call, panel, 0, ROWS, sums, PANELS * PANEL, PANELS);
      panel += PANELS;
    } else {
      const int now = call.gated ? 2 : 1;
      for (int p = 0; p < now; ++p)
        tile<ROWS, 1>(call.x, call.x_stride, at + p * call.depth * PANEL, 0, call.depth, sums + p * PANEL,
                      PANELS * PANEL);
      finish(call, panel, 0, ROWS, sums, PANELS * PANEL, now);
      panel += now;
    }
  }
}

template <typename Weight>
inline void many_rows(const LinearCall& call, const Weight* weight, int64_t begin, int64_t end, int64_t first,
                      int64_t rows) {
  alignas(64) static thread_local float sums[ROW_BLOCK * 2 * PANEL];
  const int step = call.gated ? 2 : 1;
  for (int64_t panel = begin; panel < end; panel += step) {
    std::memset(sums, 0, rows * 2 * PANEL * sizeof(float));
    for (int p = 0; p < step; ++p)
      for (int64_t k = 0; k < call.depth; k += DEPTH_BLOCK) {
        const int64_t depth = std::min<int64_t>(DEPTH_BLOCK, call.depth - k);
        const Weight* b = weight + ((panel + p) * call.depth + k) * PANEL;
        product(rows, call.x + first * call.x_stride + k, call.x_stride, b, depth, sums + p * PANEL, 2 * PANEL);
      }
    finish(call, panel, first, rows, sums, 2 * PANEL, step);
  }
}

template <typename Weight>
inline void linear(const LinearCall& call, const Weight* weight, int threads) {
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
        case 1: few_rows<1, 4>(call, weight, begin, end); break;
        case 2: few_rows<2, 2>(call, weight, begin, end); break;
        case 3: few_rows<3, 2>(call, weight, begin, end); break;
        default: many_rows(call, weight, begin, end, 0, call.rows);
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
    many_rows(call, weight, begin, std::min(panels, begin + share), first, std::min(size, call.rows - first));
  }
}

inline void linear(const LinearCall& call, int threads) {
  if (call.rows <= 0) return;
  switch (call.kind) {
    case WEIGHT_FLOAT: return linear(call, static_cast<const float*>(call.weight), threads);
    case WEIGHT_BF16: return linear(call, static_cast<const bf16*>(call.weight), threads);
    case WEIGHT_INT8: return linear(call, static_cast<const int8_t*>(call.weight), threads);
  }
}

template <typename Weight>
inline void pack(const Weight* from, int64_t width, int64_t depth, bool gated, Weight* to) {
  const int64_t panels = packed_panels(width, gated);
#pragma omp parallel for schedule(static)
  for (int64_t panel = 0; panel < panels; ++panel)
    for (int column = 0; column < PANEL; ++column) {
      const int64_t row = packed_row(panel, column, width, gated);
      Weight* at = to + panel * depth * PANEL + place<Weight>(column);
      for (int64_t k = 0; k < depth; ++k) at[k * PANEL] = row < 0 ? Weight{} : from[row * depth + k];
    }
}

inline void pack(int kind, const void* from, int64_t width, int64_t depth, bool gated, void* to) {
  switch (kind) {
    case WEIGHT_FLOAT: return pack(static_cast<const float*>(from), width, depth, gated, static_cast<float*>(to));
    case WEIGHT_BF16: return pack(static_cast<const bf16*>(from), width, depth, gated, static_cast<bf16*>(to));
    case WEIGHT_INT8: return pack(static_cast<const int8_t*>(from), width, depth, gated, static_cast<int8_t*>(to));
  }
}

template <typename Weight>
inline void embedding(const LinearCall& table, const Weight* weight, const int64_t* tokens, int64_t rows, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const Weight* at = weight + tokens[r] / PANEL * table.depth * PANEL + place<Weight>(tokens[r] % PANEL);
    const float scale = table.scales ? table.scales[tokens[r]] : 1.0f;
    for (int64_t k = 0; k < table.depth; ++k) {
      if constexpr (sizeof(Weight) == 1)
        out[r * table.depth + k] = scale * at[k * PANEL];
      else
        out[r * table.depth + k] = load_one(at + k * PANEL);
    }
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
