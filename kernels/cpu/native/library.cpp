// The library's C interface: chooses the variant for this CPU when it is loaded, and calls it.
#include <cstdlib>
#include <cstring>

#include "native.h"

extern const Variant banyan_portable;
#ifdef __x86_64__
extern const Variant banyan_avx2;
extern const Variant banyan_avx512;
extern const Variant banyan_avx512vnni;
#endif

static const Variant* fits(const char* name) {
#ifdef __x86_64__
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  if (vnni && (!name || !std::strcmp(name, banyan_avx512vnni.name))) return &banyan_avx512vnni;
  if (avx512 && (!name || !std::strcmp(name, banyan_avx512.name))) return &banyan_avx512;
  if (avx2 && (!name || !std::strcmp(name, banyan_avx2.name))) return &banyan_avx2;
#endif
  if (!name || !std::strcmp(name, banyan_portable.name)) return &banyan_portable;
  return nullptr;
}

static const Variant* variant = fits(nullptr);

extern "C" {

// Changes with every change of a struct or a call.
int banyan_version() { return 4; }

// Switches to a variant by name (avx512vnni, avx512, avx2, portable), for tests; 0 when this CPU cannot run it.
int banyan_use(const char* name) {
  const Variant* found = fits(name);
  if (found) variant = found;
  return found != nullptr;
}

const char* banyan_variant() { return variant->name; }
int banyan_panel() { return variant->panel; }
void banyan_linear(const LinearCall* call, int threads) { variant->linear(*call, threads); }
void banyan_pack(int kind, const void* from, int64_t width, int64_t depth, int gated, void* to) {
  variant->pack(kind, from, width, depth, gated != 0, to);
}
void banyan_embedding(const LinearCall* table, const int64_t* tokens, int64_t rows, float* out) {
  variant->embedding(*table, tokens, rows, out);
}
void banyan_rows_finite(const FiniteCall* call, int threads) { variant->rows_finite(*call, threads); }
void banyan_rms_norm(const NormCall* call, int threads) { variant->rms_norm(*call, threads); }
void banyan_rotate(const RotateCall* call, int threads) { variant->rotate(*call, threads); }
void banyan_attention(const AttentionCall* call, int threads) { variant->attention(*call, threads); }
void banyan_decode(const DecodeCall* call, int threads) { variant->decode(*call, threads); }
void banyan_sample(const SampleCall* call, int threads) { variant->sample(*call, threads); }
}
