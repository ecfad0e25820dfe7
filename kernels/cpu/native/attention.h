// Causal attention over paged keys and values, ragged over requests, runs of shared keys read once for all their rows.
//
// A task is a KV head and a few dozen token rows. Its queries (rows times heads per KV head) go through the keys in
// blocks of BLOCK, block boundaries counted from position 0. For each block the keys are transposed and the values laid
// in panels once, for all queries of the task that see them; then scores, online softmax (Milakov and Gimelshein 2018) and
// weighted values follow for a tile of queries at a time, as small matrix products in registers.
//
// A query's result is one chain of operations over the blocks from the first to its own position. It does not depend on
// who shares the blocks, on how its tokens are split into chunks, or on threads: cached and shared text gets the same bits
// as text computed alone.
#pragma once

#include <algorithm>
#include <vector>

#include "linear.h"
#include "native.h"
#include "vector.h"

#ifdef __AVX2__
#include <immintrin.h>
#endif

namespace BANYAN_ISA {

constexpr int BLOCK = 64;
constexpr int QUERIES = 96;  // of a task: their state (64 or 128 floats each) stays in L2 beside a block

// Keys begin .. end - 1 through block table row `item`, for token rows first .. first + rows - 1.
struct Part {
  int64_t item, first, rows, begin, end;
};

struct Task {
  int64_t first, rows, kv_head, part, parts;
  double cost;
};

// Where the keys of a block lie: from (page, offset) to the address of a (layer, K or V, head) row.
template <typename Kv>
struct Rows {
  const Kv* base;
  int64_t page_stride, page_size, head_dim;

  Rows(const Pool& pool, int64_t layer, int kind, int64_t head)
      : page_stride(pool.layers * 2 * pool.kv_heads * pool.page_size * pool.head_dim),
        page_size(pool.page_size),
        head_dim(pool.head_dim) {
    base = static_cast<const Kv*>(pool.data) + ((layer * 2 + kind) * pool.kv_heads + head) * page_size * head_dim;
  }

  const Kv* at(const int32_t* table, int64_t key) const {
    return base + table[key / page_size] * page_stride + key % page_size * head_dim;
  }
};

// Eight rows of eight numbers -> columns: to[d * PANEL + j] = rows[j][d].
template <typename Kv>
inline void transpose8(const Kv* const* rows, int64_t d, float* to) {
#ifdef __AVX2__
  __m256 r[8], t[8];
  for (int j = 0; j < 8; ++j) {
    if constexpr (sizeof(Kv) == 4)
      r[j] = _mm256_loadu_ps((const float*)rows[j] + d);
    else
      r[j] = _mm256_castsi256_ps(
          _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(rows[j] + d))), 16));
  }
  for (int j = 0; j < 8; j += 2) t[j] = _mm256_unpacklo_ps(r[j], r[j + 1]), t[j + 1] = _mm256_unpackhi_ps(r[j], r[j + 1]);
  for (int j = 0; j < 8; j += 4) {
    r[j] = _mm256_shuffle_ps(t[j], t[j + 2], 0x44), r[j + 1] = _mm256_shuffle_ps(t[j], t[j + 2], 0xee);
    r[j + 2] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0x44), r[j + 3] = _mm256_shuffle_ps(t[j + 1], t[j + 3], 0xee);
  }
  for (int j = 0; j < 4; ++j) {
    _mm256_storeu_ps(to + (d + j) * PANEL, _mm256_permute2f128_ps(r[j], r[j + 4], 0x20));
    _mm256_storeu_ps(to + (d + j + 4) * PANEL, _mm256_permute2f128_ps(r[j], r[j + 4], 0x31));
  }
#else
  for (int j = 0; j < 8; ++j)
    for (int i = 0; i < 8; ++i) to[(d + i) * PANEL + j] = load_one(rows[j] + d + i);
#endif
}

// What a thread works in. Grown once, then kept.
struct Scratch {
  std::vector<float> keys, values, queries, sums, scores, most, total;

  void fit(int64_t count, int64_t head_dim, int64_t padded) {
    grow(keys, BLOCK * head_dim);
    grow(values, BLOCK * padded);
    grow(queries, count * head_dim);
    grow(sums, count * padded);
    grow(scores, TILE * BLOCK);
    grow(most, count);
    grow(total, count);
  }

 private:
  static void grow(std::vector<float>& what, int64_t size) {
    if ((int64_t)what.size() < size) what.resize(size);
  }
};

// c [rows, panels * PANEL] += a [rows, depth] times panels of b, a tile of rows.
inline void tile_product(int64_t rows, const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t panels,
                         int64_t depth, float* c, int64_t c_stride) {
  int64_t p = 0;
  // One or two rows alone would wait for their own sums.
  if (rows <= 2)
    for (; p + 2 <= panels; p += 2)
      tiles<2, 2>(rows, a, a_stride, b + p * b_stride, b_stride, depth, c + p * PANEL, c_stride);
  for (; p < panels; ++p) tiles<TILE, 1>(rows, a, a_stride, b + p * b_stride, 0, depth, c + p * PANEL, c_stride);
}

// Scores of one query in a block -> weights; returns what the sums so far are to be multiplied by.
inline float soften(float* scores, int64_t visible, float& most, float& total) {
  Ints lane;
  for (int i = 0; i < LANES; ++i) lane[i] = i;
  const Floats hidden = splat(-1e30f);
  Floats largest = hidden;
  for (int j = 0; j < BLOCK; j += LANES) {
    const Ints seen = lane + j < (int)visible - Ints{};
    const Floats s = choose(seen, load(scores + j), hidden);
    store(scores + j, s);
    largest = max(largest, s);
  }
  const float now = std::max(most, max(largest));
  Floats sums = {};
  for (int j = 0; j < BLOCK; j += LANES) {
    // A hidden key is 0 also while `now` is still that of no key at all.
    const Ints seen = lane + j < (int)visible - Ints{};
    const Floats weight = choose(seen, exp2(load(scores + j) - splat(now)), Floats{});
    store(scores + j, weight);
    sums += weight;
  }
  const float before = exp2(splat(most - now))[0];
  total = total * before + sum(sums);
  most = now;
  return before;
}

template <typename Kv>
inline void run(const AttentionCall& call, const Task& task, const Part* parts, const int64_t* positions) {
  static thread_local Scratch scratch;
  const int64_t head_dim = call.pool.head_dim, padded = (head_dim + PANEL - 1) / PANEL * PANEL;
  const int64_t group = call.heads / call.pool.kv_heads, count = task.rows * group;
  const Rows<Kv> key_rows(call.pool, call.layer, 0, task.kv_head), value_rows(call.pool, call.layer, 1, task.kv_head);
  scratch.fit(count, head_dim, padded);
  float *keys = scratch.keys.data(), *values = scratch.values.data(), *sums = scratch.sums.data();
  const float scale = call.scale * 1.44269504f;  // softmax in base 2
  for (int64_t r = 0; r < task.rows; ++r) {
    const float* from = call.q + ((task.first + r) * call.heads + task.kv_head * group) * head_dim;
    for (int64_t i = 0; i < group * head_dim; ++i) scratch.queries[r * group * head_dim + i] = from[i] * scale;
  }
  std::fill_n(sums, count * padded, 0.0f);
  std::fill_n(scratch.most.data(), count, -1e30f);
  std::fill_n(scratch.total.data(), count, 0.0f);

  for (int64_t p = task.part; p < task.part + task.parts; ++p) {
    const Part& part = parts[p];
    const int32_t* table = call.tables + part.item * call.table_stride;
    const int64_t last_query = (part.first + part.rows - task.first) * group;
    for (int64_t block = part.begin; block < part.end; block += BLOCK) {
      const int64_t valid = std::min<int64_t>(BLOCK, part.end - block);
      const Kv *key_at[BLOCK], *value_at[BLOCK];
      for (int64_t j = 0; j < BLOCK; ++j) {
        // Past the last key the last one stands in: computed, then hidden.
        key_at[j] = key_rows.at(table, block + std::min(j, valid - 1));
        value_at[j] = value_rows.at(table, block + std::min(j, valid - 1));
      }
      if (block + BLOCK < part.end)
        for (int64_t j = block + BLOCK; j < std::min(block + 2 * BLOCK, part.end); ++j)
          for (int64_t d = 0; d < head_dim; d += 64 / sizeof(Kv)) {
            __builtin_prefetch(key_rows.at(table, j) + d);
            __builtin_prefetch(value_rows.at(table, j) + d);
          }
      for (int64_t j = 0; j < BLOCK; j += 8) {
        float* to = keys + j / PANEL * head_dim * PANEL + j % PANEL;
        int64_t d = 0;
        for (; d + 8 <= head_dim; d += 8) transpose8(key_at + j, d, to);
        for (; d < head_dim; ++d)
          for (int i = 0; i < 8; ++i) to[d * PANEL + i] = load_one(key_at[j + i] + d);
      }
      for (int64_t j = 0; j < valid; ++j) {
        const auto to = [&](int64_t d) { return values + d / PANEL * BLOCK * PANEL + j * PANEL + d % PANEL; };
        int64_t d = 0;
        for (; d + LANES <= head_dim; d += LANES) store(to(d), load(value_at[j] + d));
        for (; d < head_dim; ++d) *to(d) = load_one(value_at[j] + d);
      }

      // Rows of one item see ever more keys: the first that sees this block.
      int64_t row = part.first;
      while (positions[row] < block) ++row;
      for (int64_t query = (row - task.first) * group; query < last_query; query += TILE) {
        const int64_t tile = std::min<int64_t>(TILE, last_query - query);
        float* scores = scratch.scores.data();
        std::fill_n(scores, tile * BLOCK, 0.0f);
        tile_product(tile, scratch.queries.data() + query * head_dim, head_dim, keys, head_dim * PANEL, BLOCK / PANEL,
                     head_dim, scores, BLOCK);
        for (int64_t i = 0; i < tile; ++i) {
          const int64_t position = positions[task.first + (query + i) / group];
          const float before = soften(scores + i * BLOCK, std::min(valid, position + 1 - block),
                                      scratch.most[query + i], scratch.total[query + i]);
          if (before != 1.0f)
            for (int64_t d = 0; d < padded; d += LANES) {
              float* at = sums + (query + i) * padded + d;
              store(at, load(at) * splat(before));
            }
        }
        tile_product(tile, scores, BLOCK, values, BLOCK * PANEL, padded / PANEL, valid, sums + query * padded, padded);
      }
    }
  }
  for (int64_t r = 0; r < task.rows; ++r)
    for (int64_t g = 0; g < group; ++g) {
      const int64_t query = r * group + g;
      float* to = call.out + ((task.first + r) * call.heads + task.kv_head * group + g) * head_dim;
      const float share = 1.0f / scratch.total[query];
      for (int64_t d = 0; d < head_dim; ++d) to[d] = sums[query * padded + d] * share;
    }
}

// Tasks and their parts. An item's rows and those of everybody it shares keys with are neighbours: they form families,
// and a family is cut into tasks of about QUERIES queries, or fewer where threads would have nothing to do.
inline void lay_out(const AttentionCall& call, int threads, std::vector<Task>& tasks, std::vector<Part>& parts,
                    std::vector<int64_t>& positions) {
  std::vector<int64_t> first(call.items + 1, 0), own(call.items, 0);  // own: where an item's private keys begin
  for (int64_t i = 0; i < call.items; ++i) {
    first[i + 1] = first[i] + call.counts[i];
    for (int64_t c = 0; c < call.counts[i]; ++c) positions.push_back(call.starts[i] + c);
  }
  const auto down = [](int64_t key) { return key / BLOCK * BLOCK; };
  for (int64_t run = 0; run < call.run_count; ++run) {
    const int64_t* at = call.runs + 4 * run;
    for (int64_t i = at[0]; i < at[0] + at[1]; ++i) own[i] = std::max(own[i], down(at[3]));
  }
  const int64_t group = call.heads / call.pool.kv_heads;
  const int64_t fair = (first[call.items] * call.pool.kv_heads + 2 * threads - 1) / (2 * threads);
  const int64_t most = std::max<int64_t>(1, std::min(QUERIES / group, fair));
  int64_t run = 0;
  for (int64_t item = 0; item < call.items;) {
    const int64_t family_run = run;
    int64_t after = item + 1;
    while (run < call.run_count && call.runs[4 * run] < after) {
      after = std::max(after, call.runs[4 * run] + call.runs[4 * run + 1]);
      ++run;
    }
    const int64_t rows = first[after] - first[item], pieces = (rows + most - 1) / most;
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = first[item] + rows * piece / pieces, end = first[item] + rows * (piece + 1) / pieces;
      Task task{begin, end - begin, 0, (int64_t)parts.size(), 0, 0.0};
      const auto add = [&](int64_t table, int64_t from, int64_t to, int64_t key, int64_t last) {
        from = std::max(from, begin), to = std::min(to, end);
        if (from >= to || key >= last) return;
        parts.push_back({table, from, to - from, key, last});
        task.parts += 1;
        task.cost += (double)(last - key) * (2.0 + (to - from) * group);
      };
      for (int64_t r = family_run; r < run; ++r) {
        const int64_t* at = call.runs + 4 * r;
        add(at[0], first[at[0]], first[at[0] + at[1]], down(at[2]), down(at[3]));
      }
      for (int64_t i = item; i < after; ++i)
        if (first[i] < end && first[i + 1] > begin)
          add(i, first[i], first[i + 1], own[i], positions[std::min(end, first[i + 1]) - 1] + 1);
      for (int64_t head = 0; head < call.pool.kv_heads; ++head) {
        task.kv_head = head;
        tasks.push_back(task);
      }
    }
    item = after;
  }
  std::stable_sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) { return a.cost > b.cost; });
}

inline void attention(const AttentionCall& call, int threads) {
  static thread_local std::vector<Task> tasks;
  static thread_local std::vector<Part> parts;
  static thread_local std::vector<int64_t> positions;
  tasks.clear(), parts.clear(), positions.clear();
  lay_out(call, threads, tasks, parts, positions);
  const Task* task = tasks.data();
  const Part* part = parts.data();
  const int64_t* position = positions.data();
  const int64_t count = tasks.size();
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t t = 0; t < count; ++t) {
    if (call.pool.kind == KV_FLOAT)
      run<float>(call, task[t], part, position);
    else
      run<bf16>(call, task[t], part, position);
  }
}

}  // namespace BANYAN_ISA
