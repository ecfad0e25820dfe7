// Causal attention over paged keys and values, ragged over requests, runs of shared keys read once for all their rows.
//
// A task is a KV head and a few dozen token rows. Its queries (rows times heads per KV head) go through the keys in
// blocks of BLOCK, block boundaries counted from position 0; for each block scores, online softmax (Milakov and Gimelshein
// 2018) and weighted values follow for a tile of queries at a time, as small matrix products in registers. The pool's
// keys are stored transposed (see Pool), so that both products read pages as they lie.
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

namespace BANYAN_ISA {

constexpr int BLOCK = 64;
constexpr int KEYS = 16;      // that lie together, at least: a page holds a multiple of them, or is copied
constexpr int GROUPS = BLOCK / KEYS;
constexpr int QUERIES = 96;   // of a task: their state (64 or 128 floats each) stays in L2 beside a block
constexpr int SUMS = TILE * 2;  // vectors of sums that fill the registers

// Keys begin .. end - 1 through block table row `item`, for token rows first .. first + rows - 1.
struct Part {
  int64_t item, first, rows, begin, end;
};

struct Task {
  int64_t first, rows, kv_head, part, parts;
  double cost;
};

// A block's keys, as GROUPS tiles [head_dim][KEYS] with key_step numbers from row to row, and its values, as GROUPS tiles
// [KEYS][head_dim] with value_step.
template <typename Number>
struct Block {
  const Number *keys[GROUPS], *values[GROUPS];
  int64_t key_step, value_step;
};

// How many vectors of sums a tile of `rows` takes at a time, a power of two up to 4.
constexpr int vectors(int rows) { return rows * 4 <= SUMS ? 4 : rows * 2 <= SUMS ? 2 : 1; }

// scores [ROWS][BLOCK] = queries [ROWS][dim] times the keys of the block. DIM is the head's size if it is a usual one, else
// 0: rows at constant distances need no registers for their addresses.
template <int ROWS, int DIM, typename Number>
inline void score(const float* queries, int64_t any_dim, const Block<Number>& block, float* scores) {
  const int64_t dim = DIM ? DIM : any_dim;
  constexpr int per_group = KEYS / LANES, groups = std::max(1, vectors(ROWS) / per_group), width = groups * per_group;
  for (int group = 0; group < GROUPS; group += groups) {
    Floats sums[ROWS][width] = {};
    for (int64_t d = 0; d < dim; ++d) {
      Floats keys[width];
      for (int v = 0; v < width; ++v)
        keys[v] = load(block.keys[group + v / per_group] + d * block.key_step + v % per_group * LANES);
      for (int r = 0; r < ROWS; ++r) {
        const Floats query = splat(queries[r * dim + d]);
        for (int v = 0; v < width; ++v) sums[r][v] += query * keys[v];
      }
    }
    for (int r = 0; r < ROWS; ++r)
      for (int v = 0; v < width; ++v) store(scores + r * BLOCK + group * KEYS + v * LANES, sums[r][v]);
  }
}

// out [ROWS][WIDTH vectors] += weights [ROWS][BLOCK] times the first `valid` values of the block, from column `at` on.
template <int ROWS, int WIDTH, typename Number>
inline void weigh_columns(const float* weights, const Block<Number>& block, int64_t valid, int64_t at, float* out,
                          int64_t out_stride) {
  Floats sums[ROWS][WIDTH];
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < WIDTH; ++v) sums[r][v] = load(out + r * out_stride + at + v * LANES);
  for (int64_t j = 0; j < valid; ++j) {
    const Number* row = block.values[j / KEYS] + j % KEYS * block.value_step + at;
    Floats values[WIDTH];
    for (int v = 0; v < WIDTH; ++v) values[v] = load(row + v * LANES);
    for (int r = 0; r < ROWS; ++r) {
      const Floats weight = splat(weights[r * BLOCK + j]);
      for (int v = 0; v < WIDTH; ++v) sums[r][v] += weight * values[v];
    }
  }
  for (int r = 0; r < ROWS; ++r)
    for (int v = 0; v < WIDTH; ++v) store(out + r * out_stride + at + v * LANES, sums[r][v]);
}

template <int ROWS, typename Number>
inline void weigh(const float* weights, const Block<Number>& block, int64_t valid, int64_t width, float* out) {
  constexpr int wide = vectors(ROWS);
  int64_t at = 0;
  for (; at + wide * LANES <= width; at += wide * LANES)
    weigh_columns<ROWS, wide>(weights, block, valid, at, out, width);
  for (; at < width; at += LANES) weigh_columns<ROWS, 1>(weights, block, valid, at, out, width);
}

template <int ROWS, typename Number>
inline void score(int rows, const float* queries, int64_t dim, const Block<Number>& block, float* scores) {
  if constexpr (ROWS > 0) {
    if (rows != ROWS) return score<ROWS - 1>(rows, queries, dim, block, scores);
    if (dim == 64) return score<ROWS, 64>(queries, dim, block, scores);
    if (dim == 128) return score<ROWS, 128>(queries, dim, block, scores);
    score<ROWS, 0>(queries, dim, block, scores);
  }
}

template <int ROWS, typename Number>
inline void weigh(int rows, const float* weights, const Block<Number>& block, int64_t valid, int64_t width, float* out) {
  if constexpr (ROWS > 0) {
    if (rows == ROWS) return weigh<ROWS>(weights, block, valid, width, out);
    weigh<ROWS - 1>(rows, weights, block, valid, width, out);
  }
}

// Finds blocks in the pool. Where pages or heads do not fit the vectors, a block is copied, widened, into `keys` and
// `values`.
template <typename Kv>
struct Pages {
  const Kv *key_base, *value_base;
  const int32_t* table;
  int64_t page_stride, page_size, head_dim;

  Pages(const AttentionCall& call, int64_t head, int64_t item) {
    const Pool& pool = call.pool;
    page_size = pool.page_size, head_dim = pool.head_dim;
    page_stride = pool.layers * 2 * pool.kv_heads * page_size * head_dim;
    key_base = static_cast<const Kv*>(pool.data) + (call.layer * 2 * pool.kv_heads + head) * page_size * head_dim;
    value_base = key_base + pool.kv_heads * page_size * head_dim;
    table = call.tables + item * call.table_stride;
  }

  static bool fit(const Pool& pool) { return pool.page_size % KEYS == 0 && pool.head_dim % LANES == 0; }

  // The block at `key`, whose first `valid` keys are there; behind them stands what is there already.
  Block<Kv> direct(int64_t key, int64_t valid) const {
    Block<Kv> block;
    block.key_step = page_size, block.value_step = head_dim;
    for (int g = 0; g < GROUPS; ++g) {
      const int64_t at = key + std::min<int64_t>(g * KEYS, (valid - 1) / KEYS * KEYS), offset = at % page_size;
      const int64_t page = table[at / page_size] * page_stride;
      block.keys[g] = key_base + page + offset;
      block.values[g] = value_base + page + offset * head_dim;
    }
    return block;
  }

  Block<float> copied(int64_t key, int64_t valid, int64_t padded, float* keys, float* values) const {
    Block<float> block;
    block.key_step = KEYS, block.value_step = padded;
    for (int g = 0; g < GROUPS; ++g) {
      block.keys[g] = keys + g * KEYS * head_dim;
      block.values[g] = values + g * KEYS * padded;
    }
    for (int64_t j = 0; j < valid; ++j) {
      const int64_t offset = (key + j) % page_size, page = table[(key + j) / page_size] * page_stride;
      for (int64_t d = 0; d < head_dim; ++d) {
        keys[(j / KEYS * head_dim + d) * KEYS + j % KEYS] = load_one(key_base + page + d * page_size + offset);
        values[j * padded + d] = load_one(value_base + page + offset * head_dim + d);
      }
    }
    return block;
  }

  void prefetch(int64_t key, int64_t end) const {
    for (end = std::min(end, key + BLOCK); key < end; key += page_size - key % page_size) {
      const int64_t page = table[key / page_size] * page_stride;
      const int64_t bytes = page_size * head_dim * sizeof(Kv);
      for (int64_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch((const char*)(key_base + page) + i);
        __builtin_prefetch((const char*)(value_base + page) + i);
      }
    }
  }
};

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

// Scores of a tile's rows in a block -> weights. `visible` keys of each are seen, at least one; `factor`: what the sums so
// far are to be multiplied by. Rows go through each part together, since a row's steps wait for each other.
__attribute__((noinline)) inline void soften(float* scores, int rows, const int64_t* visible, float* most, float* total,
                                             float* factor) {
  float now[TILE];
  for (int r = 0; r < rows; ++r) {
    float* row = scores + r * BLOCK;
    for (int64_t j = visible[r]; j < BLOCK; ++j) row[j] = -INFINITY;  // weighs 0
    Floats largest = load(row), second = load(row + LANES);
    for (int j = 2 * LANES; j < BLOCK; j += 2 * LANES)
      largest = max(largest, load(row + j)), second = max(second, load(row + j + LANES));
    now[r] = std::max(most[r], max(max(largest, second)));
  }
  for (int r = 0; r < rows; ++r) factor[r] = most[r] - now[r], most[r] = now[r];
  for (int r = 0; r < rows; r += LANES) {
    Floats before = {};
    std::memcpy(&before, factor + r, std::min(LANES, rows - r) * sizeof(float));
    before = exp2_below(before);
    std::memcpy(factor + r, &before, std::min(LANES, rows - r) * sizeof(float));
  }
  for (int r = 0; r < rows; ++r) {
    float* row = scores + r * BLOCK;
    const Floats highest = splat(now[r]);
    Floats sums = {};
    for (int j = 0; j < BLOCK; j += LANES) {
      const Floats weight = exp2_below(load(row + j) - highest);
      store(row + j, weight);
      sums += weight;
    }
    total[r] = total[r] * factor[r] + sum(sums);
  }
}

// One block for queries begin .. end - 1 of a task; `position` is that of the query's row.
template <typename Number>
inline void attend(const Block<Number>& block, int64_t key, int64_t valid, int64_t begin, int64_t end, int64_t group,
                   const int64_t* positions, int64_t head_dim, int64_t padded, Scratch& scratch) {
  float* scores = scratch.scores.data();
  for (int64_t tiles = (end - begin + TILE - 1) / TILE; begin < end; --tiles) {
    const int rows = (end - begin + tiles - 1) / tiles;
    float* sums = scratch.sums.data() + begin * padded;
    score<TILE>(rows, scratch.queries.data() + begin * head_dim, head_dim, block, scores);
    int64_t seen[TILE];
    float factor[TILE];
    for (int i = 0; i < rows; ++i) seen[i] = std::min(valid, positions[(begin + i) / group] + 1 - key);
    soften(scores, rows, seen, scratch.most.data() + begin, scratch.total.data() + begin, factor);
    for (int i = 0; i < rows; ++i)
      if (factor[i] != 1.0f)
        for (int64_t d = 0; d < padded; d += LANES)
          store(sums + i * padded + d, load(sums + i * padded + d) * splat(factor[i]));
    weigh<TILE>(rows, scores, block, valid, padded, sums);
    begin += rows;
  }
}

template <typename Kv>
inline void run(const AttentionCall& call, const Task& task, const Part* parts, const int64_t* positions) {
  static thread_local Scratch scratch;
  const bool fit = Pages<Kv>::fit(call.pool);
  const int64_t head_dim = call.pool.head_dim, padded = (head_dim + LANES - 1) / LANES * LANES;
  const int64_t group = call.heads / call.pool.kv_heads, count = task.rows * group;
  positions += task.first;
  scratch.fit(count, head_dim, padded);
  float* sums = scratch.sums.data();
  const float scale = call.scale * 1.44269504f;  // softmax in base 2
  for (int64_t r = 0; r < task.rows; ++r) {
    const float* from = call.q + ((task.first + r) * call.heads + task.kv_head * group) * head_dim;
    for (int64_t i = 0; i < group * head_dim; ++i) scratch.queries[r * group * head_dim + i] = from[i] * scale;
  }
  std::fill_n(sums, count * padded, 0.0f);
  std::fill_n(scratch.most.data(), count, -1e30f);
  std::fill_n(scratch.total.data(), count, 0.0f);
  if (!fit) std::fill(scratch.values.begin(), scratch.values.end(), 0.0f);  // columns past the head

  for (int64_t p = task.part; p < task.part + task.parts; ++p) {
    const Part& part = parts[p];
    const Pages<Kv> pages(call, task.kv_head, part.item);
    const int64_t end = part.first + part.rows - task.first;
    int64_t row = part.first - task.first;
    for (int64_t key = part.begin; key < part.end; key += BLOCK) {
      const int64_t valid = std::min<int64_t>(BLOCK, part.end - key);
      // The next block, of this part or of the next one.
      if (key + BLOCK < part.end)
        pages.prefetch(key + BLOCK, part.end);
      else if (p + 1 < task.part + task.parts)
        Pages<Kv>(call, task.kv_head, parts[p + 1].item).prefetch(parts[p + 1].begin, parts[p + 1].end);
      // Rows of one item see ever more keys: the first that sees this block.
      while (positions[row] < key) ++row;
      if (fit)
        attend(pages.direct(key, valid), key, valid, row * group, end * group, group, positions, head_dim, padded,
               scratch);
      else
        attend(pages.copied(key, valid, padded, scratch.keys.data(), scratch.values.data()), key, valid, row * group,
               end * group, group, positions, head_dim, padded, scratch);
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

// A step's work, the same in every layer.
struct Schedule {
  std::vector<Task> tasks;
  std::vector<Part> parts;
  std::vector<int64_t> positions;
};

// Tasks and their parts. An item's rows and those of everybody it shares keys with are neighbours: they form families,
// and a family is cut into tasks of about QUERIES queries, or fewer where threads would have nothing to do.
inline void lay_out(const AttentionCall& call, int threads, Schedule& schedule) {
  std::vector<Task>& tasks = schedule.tasks;
  std::vector<Part>& parts = schedule.parts;
  std::vector<int64_t>& positions = schedule.positions;
  tasks.clear(), parts.clear(), positions.clear();
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
        task.cost += (double)(last - key) * (1.0 + (to - from) * group);
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

inline void attention(const AttentionCall& call, const Schedule& schedule, int threads) {
  const int64_t count = schedule.tasks.size();
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t t = 0; t < count; ++t) {
    if (call.pool.kind == KV_FLOAT)
      run<float>(call, schedule.tasks[t], schedule.parts.data(), schedule.positions.data());
    else
      run<bf16>(call, schedule.tasks[t], schedule.parts.data(), schedule.positions.data());
  }
}

inline void attention(const AttentionCall& call, int threads) {
  static thread_local Schedule schedule;
  lay_out(call, threads, schedule);
  attention(call, schedule, threads);
}

}  // namespace BANYAN_ISA
