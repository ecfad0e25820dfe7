// All layers of a decoder in one call: the operations one after another, in buffers that are kept.
#pragma once

#include <vector>

#include "attention.h"
#include "elementwise.h"
#include "linear.h"
#include "native.h"

namespace BANYAN_ISA {

inline void multiply(LinearCall weight, const float* x, int64_t rows, std::vector<float>& out, int threads) {
  const int64_t width = weight.gated ? weight.width / 2 : weight.width;
  if ((int64_t)out.size() < rows * width) out.resize(rows * width);
  weight.x = x, weight.rows = rows, weight.x_stride = weight.depth;
  weight.out = out.data(), weight.out_stride = width;
  linear(weight, threads);
}

inline void decode(const DecodeCall& call, int threads) {
  static thread_local std::vector<float> x, qkv, query, attended, out, gated;
  RotateCall turn = call.rotate;
  AttentionCall attend = call.attention;
  const int64_t rows = call.rows, wide = attend.heads * attend.pool.head_dim;
  x.resize(rows * call.hidden), query.resize(rows * wide), attended.resize(rows * wide);
  static thread_local Schedule schedule;
  lay_out(attend, threads, schedule);
  const float* added = nullptr;
  for (int64_t l = 0; l < call.layer_count; ++l) {
    const LayerWeights& layer = call.layers[l];
    rms_norm({added, call.residual, layer.attention_norm, x.data(), rows, call.hidden, call.eps}, threads);
    multiply(layer.qkv, x.data(), rows, qkv, threads);
    turn.qkv = qkv.data(), turn.q = query.data(), turn.layer = l;
    turn.q_norm = layer.q_norm, turn.k_norm = layer.k_norm;
    rotate(turn, threads);
    attend.q = query.data(), attend.out = attended.data(), attend.layer = l;
    attention(attend, schedule, threads);
    multiply(layer.output, attended.data(), rows, out, threads);
    rms_norm({out.data(), call.residual, layer.mlp_norm, x.data(), rows, call.hidden, call.eps}, threads);
    multiply(layer.gate_up, x.data(), rows, gated, threads);
    multiply(layer.down, gated.data(), rows, out, threads);
    added = out.data();
  }
  for (int64_t i = 0; added && i < rows * call.hidden; ++i) call.residual[i] += added[i];
}

}  // namespace BANYAN_ISA
