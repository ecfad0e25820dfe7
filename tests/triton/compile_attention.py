"""Compile the attention kernels as they are launched and print, per variant, a line of JSON with what came out.

Run as ``python -m tests.triton.compile_attention [name ...]`` without TRITON_INTERPRET. Needs no GPU.
"""

import json
import sys

import torch

from kernels.triton.attention import Variant
from kernels.triton.attention_kernel import attention_kernel
from kernels.triton.merge import HEADS_PER_PROGRAM, merge_kernel
from kernels.triton.plan import Heads
from tests.triton.sass import Compiled, inspect

BF16, FP16, FP32, FP8 = torch.bfloat16, torch.float16, torch.float32, torch.float8_e4m3fn
NAMES = {BF16: "bf16", FP16: "fp16", FP32: "fp32", FP8: "fp8e4nv"}
_D64, _D80, _D128 = (Heads(4, 8, dim) for dim in (64, 80, 128))
_G7 = Heads(7, 4, 128)

# name: (compute capability, variant)
VARIANTS = {
    "narrow 16 d128": (90, Variant(_D128, 16, 64, BF16, BF16)),
    "narrow 16 beside": (90, Variant(_D128, 16, 64, BF16, BF16, early=True, beside=True)),
    "narrow 32 d128": (90, Variant(_D128, 32, 64, BF16, BF16)),
    "narrow 16 d64": (90, Variant(_D64, 16, 64, BF16, BF16, early=True, beside=True)),
    "narrow 16 d80": (90, Variant(_D80, 16, 64, FP16, FP16)),
    "narrow 32 tree": (90, Variant(_D128, 32, 64, BF16, BF16, tree=True)),
    "narrow 16 fp8": (90, Variant(_D128, 16, 64, BF16, FP8, scaled=True)),
    "narrow 16 fp8 page 16": (90, Variant(_D128, 16, 16, BF16, FP8, scaled=True)),
    "narrow 16 page 16": (90, Variant(_D128, 16, 16, BF16, BF16)),
    "narrow 16 page 16 d80": (90, Variant(_D80, 16, 16, BF16, BF16)),
    "wide 128 d128": (90, Variant(_D128, 128, 64, BF16, BF16, early=True)),
    "wide 128 d64": (90, Variant(_D64, 128, 64, BF16, BF16)),
    "wide 128 d64 page 16": (90, Variant(_D64, 128, 16, BF16, BF16)),
    "wide 128 d64 tree": (90, Variant(_D64, 128, 64, BF16, BF16, tree=True)),
    "wide 128 fp8": (90, Variant(_D128, 128, 64, BF16, FP8, scaled=True)),
    "wide 64 d128": (90, Variant(_G7, 64, 64, BF16, BF16)),
    "wide 64 tree": (90, Variant(_D128, 64, 64, BF16, BF16, tree=True)),
    "wide 128 page 16": (90, Variant(_D128, 128, 16, BF16, BF16)),
    "narrow 16 fp32": (90, Variant(Heads(4, 8, 64, 4), 16, 64, FP32, FP32)),
    "ampere narrow 16": (80, Variant(_D128, 16, 64, BF16, BF16, copy_engine=False)),
    "ampere wide 128": (80, Variant(_D128, 128, 64, BF16, BF16, copy_engine=False)),
}


def attention(capability: int, variant: Variant) -> Compiled:
    """One variant of the attention kernel, with the argument types of its launch."""
    config, lanes = variant.config(), variant.lanes
    q, kv = NAMES[variant.dtype], NAMES[variant.kv_dtype]
    signature = {
        "q": f"*{q}",
        "out": f"*{q}",
        "partial": "*fp32",
        "partial_lse": "*fp32",
        **dict.fromkeys(("items", "n_items", "starts", "tables"), "*i32"),
        **dict.fromkeys(("layer", "layers", "table_width"), "i32"),
        "scale": "fp32",
        **dict.fromkeys(("q_token", "q_kv_head", "q_head", "out_token", "out_head"), "i32:16"),
    }
    constants = variant.constants()
    if variant.by_descriptor:
        signature["kv"] = f"tensordesc<{kv}[{config.keys},{lanes}]>"
        constants["pool"] = None
    else:
        signature["pool"] = f"*{kv}"
        constants["kv"] = None
    for name, type_, used in (("scales", "*fp32", variant.scaled), ("tree_masks", "*i64", variant.tree)):
        if used:
            signature[name] = type_
        else:
            constants[name] = None
    return inspect(attention_kernel, signature, constants, config.warps, num_stages=3, capability=capability)


def merging(dim: int) -> Compiled:
    """The merge of partial results."""
    signature = {
        **dict.fromkeys(("partial", "partial_lse"), "*fp32"),
        "out": "*bf16",
        **dict.fromkeys(("tokens", "begins", "slots", "n_tokens"), "*i32"),
        **dict.fromkeys(("out_token", "out_head"), "i32:16"),
        "heads": "i32",
    }
    constants = {
        "DIM": dim,
        "LANES": 1 << (dim - 1).bit_length(),
        "HEADS": HEADS_PER_PROGRAM,
        "STAGES": 3,
        "EARLY": True,
    }
    return inspect(merge_kernel, signature, constants, num_warps=4, num_stages=3)


def main() -> None:
    for name, (capability, variant) in VARIANTS.items():
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            report(name, attention(capability, variant), variant.config().warps)
    if len(sys.argv) == 1 or "merge" in sys.argv[1:]:
        report("merge", merging(128), 4)


def report(name: str, compiled: Compiled, warps: int) -> None:
    """Print one line."""
    counted = ("HGMMA", "HMMA", "UTMALDG", "LDGSTS")
    figures = {
        "name": name,
        "registers": compiled.registers,
        "stack": compiled.stack,
        "spills": compiled.spills,
        "shared": compiled.shared_bytes,
        "programs": compiled.programs_per_sm(warps),
        "griddepcontrol": compiled.ptx.count("griddepcontrol"),
        **{opcode: compiled.instructions[opcode] for opcode in counted},
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
