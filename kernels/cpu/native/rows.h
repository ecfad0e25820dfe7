// Rows of a product, as the panels meet them: tiles of up to TILE rows, [depth / step][rows of the tile][step], so that a
// step over depth reads neighbours. Tiles are as even as possible: 16 rows are 6 + 5 + 5, not 6 + 6 + 4, since small tiles
// wait for their own sums.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "native.h"
#include "vector.h"

namespace BANYAN_ISA {

constexpr int TILE = LANES == 16 ? 14 : 6;  // rows whose sums, two vectors each, fill the registers

// What rows are multiplied as and summed in, and how many neighbours of depth go into one step.
template <typename Weight>
struct Kind {
  typedef float Input;
  typedef float Sum;
  static constexpr int step = 1;
};
template <>
struct Kind<int8_t> {
  typedef int16_t Input;
  typedef int32_t Sum;
  static constexpr int step = 2;
};

// `depth` is that of the panels; `scale` by row, null for 1.
template <typename Input>
struct Rows {
  const Input* data;
  const float* scale;
  int64_t rows, tiles, depth;

  int64_t first(int64_t tile) const { return rows * tile / tiles; }
};

inline int64_t tile_count(int64_t rows) { return (rows + TILE - 1) / TILE; }

// Kept by the calling thread; the others read and fill them.
template <typename Input>
struct RowStore {
  std::vector<Input> data;
  std::vector<float> scale;
};

// Fills tile by tile, by `threads`: row(r, to, stride) writes row r, its steps `stride` steps apart.
template <typename Input, typename Row>
inline Rows<Input> tiled(RowStore<Input>& store, int64_t rows, int64_t depth, int step, int threads, const Row& row) {
  if ((int64_t)store.data.size() < rows * depth) store.data.resize(rows * depth);
  Input* data = store.data.data();
  const Rows<Input> made{data, store.scale.data(), rows, tile_count(rows), depth};
#pragma omp parallel for num_threads(threads) schedule(static) if (rows * depth > ALONE)
  for (int64_t t = 0; t < made.tiles; ++t) {
    const int64_t first = made.first(t), count = made.first(t + 1) - first;
    for (int64_t r = 0; r < count; ++r) row(first + r, data + first * depth + r * step, count);
  }
  return made;
}

inline Rows<float> tile_rows(const LinearCall& call, int threads) {
  static thread_local RowStore<float> store;
  Rows<float> made = tiled(store, call.rows, call.depth, 1, threads, [&](int64_t r, float* to, int64_t stride) {
    const float* x = call.x + r * call.x_stride;
    for (int64_t k = 0; k < call.depth; ++k) to[k * stride] = x[k];
  });
  made.scale = nullptr;
  return made;
}

// One row -> integers in pairs; returns the scale. What is not finite makes the scale, and so the whole row of outputs, a
// NaN.
inline float round_row(const float* x, int64_t depth, float most, int16_t* to, int64_t stride) {
  // As integers, magnitudes are in the same order, with what is not finite at the end.
  const Ints magnitude = 0x7fffffff - Ints{};
  Ints sizes = {};
  int64_t i = 0;
  for (; i + LANES <= depth; i += LANES) sizes = max(sizes, (Ints)load(x + i) & magnitude);
  int32_t bits = 0;
  for (int l = 0; l < LANES; ++l) bits = std::max(bits, sizes[l]);
  for (; i < depth; ++i) {
    int32_t size;
    std::memcpy(&size, x + i, sizeof size);
    bits = std::max(bits, size & 0x7fffffff);
  }
  float largest;
  std::memcpy(&largest, &bits, sizeof largest);
  const bool finite = bits < 0x7f800000;
  const float factor = finite && largest > 1e-30f ? most / largest : 0.0f;

  constexpr int CHUNK = 128;
  int16_t rounded[CHUNK];
  for (int64_t first = 0; first < depth; first += CHUNK) {
    const int count = std::min<int64_t>(CHUNK, depth - first);
    for (int k = 0; k < count; ++k) {
      // Adding 1.5 * 2**23 leaves the nearest integer in the low bits.
      const float shifted = x[first + k] * factor + 12582912.0f;
      int32_t number;
      std::memcpy(&number, &shifted, sizeof number);
      rounded[k] = finite ? (int16_t)(number - 0x4B400000) : 0;
    }
    if (count % 2) rounded[count] = 0;
    for (int k = 0; k < count; k += 2) std::memcpy(to + (first + k) * stride, rounded + k, 2 * sizeof rounded[0]);
  }
  return finite ? largest / most : NAN;
}

// Rows as 16-bit integers with a scale of their own, as fine as sums of 32 bits allow.
inline Rows<int16_t> round_rows(const LinearCall& call, int threads) {
  static thread_local RowStore<int16_t> store;
  if ((int64_t)store.scale.size() < call.rows) store.scale.resize(call.rows);
  float* scale = store.scale.data();
  const float most = std::floor(std::min(32767.0, 2147483647.0 / (127.0 * call.depth)));
  const int64_t depth = (call.depth + 1) / 2 * 2;
  return tiled(store, call.rows, depth, 2, threads, [&](int64_t r, int16_t* to, int64_t stride) {
    scale[r] = round_row(call.x + r * call.x_stride, call.depth, most, to, stride);
  });
}

}  // namespace BANYAN_ISA
