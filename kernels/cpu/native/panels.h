// Packed weights: panels of PANEL output columns, each [depth][PANEL], so that a step over depth reads whole vectors.
// Columns past the width are zeros. In bfloat16 the two vectors of a panel alternate number by number: as 32-bit words, the
// first vector is in the lower halves and the second in the upper ones, and two vectors are widened by a shift and a mask.
// int8 panels are [depth / 2][PANEL][2], for an instruction that multiplies pairs.
#pragma once

#include <algorithm>

#include "native.h"
#include "vector.h"

namespace BANYAN_ISA {

constexpr int PANEL = 2 * LANES;

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
