// One instruction set's code; compiled once per set, with BANYAN_ISA and LANES given by the build.
#include "attention.h"
#include "decode.h"
#include "elementwise.h"
#include "linear.h"
#include "native.h"

#define TEXT(x) #x
#define NAME(x) TEXT(x)
#define JOIN(a, b) a##b
#define SYMBOL(a, b) JOIN(a, b)

namespace BANYAN_ISA {
void sample(const SampleCall& call, int threads);  // sample.cpp
}

extern const Variant SYMBOL(banyan_, BANYAN_ISA);
const Variant SYMBOL(banyan_, BANYAN_ISA) = {
    NAME(BANYAN_ISA),     BANYAN_ISA::PANEL,    BANYAN_ISA::linear, BANYAN_ISA::pack,
    BANYAN_ISA::embedding, BANYAN_ISA::rows_finite, BANYAN_ISA::rms_norm, BANYAN_ISA::rotate,
    BANYAN_ISA::attention, BANYAN_ISA::decode, BANYAN_ISA::sample,
};
