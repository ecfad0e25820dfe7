// The calls of the library as plain C: what Python fills in, and what each variant of the code is given. All pointers
// are the caller's; nothing is kept between calls. Floating numbers are float32 unless a kind says otherwise.
#pragma once

#include <cstdint>

// Numbers up to which work between products is done by one thread. The others sleep soon when they have nothing to do, and
// to wake them costs more than all but a few short rows.
constexpr int64_t ALONE = 4096;

enum WeightKind { WEIGHT_FLOAT = 0, WEIGHT_BF16 = 1, WEIGHT_INT8 = 2 };
enum KvKind { KV_FLOAT = 0, KV_BF16 = 1 };

// out [rows, width] = x [rows, depth] times the weight, times `scales`, plus `bias`. With `gated` the weight holds gates
// and ups, and out [rows, width / 2] = silu(gate) * up. `scales` and `bias` are in the order of the packed columns and as
// long; null for none.
struct LinearCall {
  const float* x;
  int64_t rows, x_stride;
  const void* weight;
  int32_t kind, gated;
  int64_t width, depth;
  const float* scales;
  const float* bias;
  float* out;
  int64_t out_stride;
};

// out = x / rms(x) * weight by row of [rows, width]; with `residual`, residual += x first
// (not for a null x), and that is normalised.
struct NormCall {
  const float* x;
  float* residual;
  const float* weight;
  float* out;
  int64_t rows, width;
  float eps;
};

// finite [rows]: whether the sum of a row of [rows, width] is.
struct FiniteCall {
  const float* x;
  int64_t rows, width, stride;
  bool* finite;
};

// The pool: [pages, layers, 2, kv_heads] tiles; a tile of values is [page_size][head_dim], a tile of keys is transposed,
// [head_dim][page_size].
struct Pool {
  void* data;
  int32_t kind;
  int64_t layers, kv_heads, page_size, head_dim;
};

// qkv [rows, (heads + 2 * kv_heads) * head_dim] -> rotated queries in `q` [rows, heads, head_dim], rotated keys and
// values in the pool at `slots` [rows] (page * page_size + offset). cosine, sine [rows, head_dim / 2].
// q_norm, k_norm [head_dim]: weights of a norm per head before the rotation; null for none.
struct RotateCall {
  const float* qkv;
  int64_t rows, heads;
  const float* cosine;
  const float* sine;
  const float* q_norm;
  const float* k_norm;
  float eps;
  Pool pool;
  int64_t layer;
  const int64_t* slots;
  float* q;
};

// Attention of a step's new tokens over the pool, both [tokens, heads, head_dim]. The tokens of item i follow those of
// item i - 1; they are counts[i] tokens from position starts[i] on, whose pages stand in row i of `tables`.
// runs [run_count][4]: first item, items, first key, past the last key, as kernels/prefix_runs.py makes them.
struct AttentionCall {
  const float* q;
  float* out;
  int64_t heads;
  Pool pool;
  int64_t layer;
  int64_t items;
  const int64_t* counts;
  const int64_t* starts;
  const int32_t* tables;
  int64_t table_stride;
  const int64_t* runs;
  int64_t run_count;
  float scale;
};

// The layers of a decoder, each: x = norm(residual); residual += output(attention(qkv(x))); x = norm(residual);
// residual += down(gate_up(x)). The weights of a layer; the rest of a LinearCall is filled in by `decode`.
struct LayerWeights {
  LinearCall qkv, output, gate_up, down;
  const float *attention_norm, *mlp_norm, *q_norm, *k_norm;
};

// residual [rows, hidden] in and out; rotate.qkv, rotate.q, attention.q, attention.out and `layer` are filled in here.
struct DecodeCall {
  const LayerWeights* layers;
  int64_t layer_count;
  float* residual;
  int64_t rows, hidden;
  float eps;
  RotateCall rotate;
  AttentionCall attention;
};

// kernels/sample.py: a token per row of logits [rows, vocab]. min_p, history, mask: null for none; bias_count 0 for none.
// bias [rows][bias_count], history [slots][vocab], mask [rows][mask_stride] words of 32 tokens; the others [rows].
struct SampleCall {
  const float* logits;
  int64_t rows, vocab;
  const float* temperature;
  const int64_t* top_k;
  const float* top_p;
  const int64_t *seed, *position;
  const float* min_p;
  const int16_t* history;
  const int64_t* history_slot;
  const float *repetition, *presence, *frequency;
  const int64_t* bias_tokens;
  const float* bias_values;
  int64_t bias_count;
  const uint32_t* mask;
  int64_t mask_stride;
  int64_t* tokens;
};

struct Variant {
  const char* name;
  int panel;
  void (*linear)(const LinearCall&, int threads);
  void (*pack)(int kind, const void* from, int64_t width, int64_t depth, bool gated, void* to);
  void (*embedding)(const LinearCall& table, const int64_t* tokens, int64_t rows, float* out);
  void (*rows_finite)(const FiniteCall&, int threads);
  void (*rms_norm)(const NormCall&, int threads);
  void (*rotate)(const RotateCall&, int threads);
  void (*attention)(const AttentionCall&, int threads);
  void (*decode)(const DecodeCall&, int threads);
  void (*sample)(const SampleCall&, int threads);
};
