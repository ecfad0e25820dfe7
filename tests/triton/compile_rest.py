"""Compile the kernels beside attention as they are launched and print, per variant, a line of JSON with what came out.

Run as ``python -m tests.triton.compile_rest [name ...]`` without TRITON_INTERPRET. Needs no GPU.
"""

import json
import re
import sys
from collections.abc import Callable

from kernels.triton import (
    linear,
    moe,
    page_copy,
    penalties,
    rms_norm,
    rope,
    rows_finite,
    sample,
    sample_bracket,
    sample_cut,
    silu_and_mul,
    verify,
)
from tests.triton.sass import Compiled, inspect

# Warps, and what compiles for a compute capability.
Variant = tuple[int, Callable[[int], Compiled]]

# Types of arguments by name, where all kernels of a module agree.
SAMPLER = {
    **dict.fromkeys(("Logits", "Temperature", "TopP", "MinP", "Best", "Groups", "Largest", "Probabilities"), "*fp32"),
    **dict.fromkeys(("Repetition", "Presence", "Frequency", "Values", "Out", "RowTemperature", "RowTopP"), "*fp32"),
    **dict.fromkeys(("Bitmask", "BestToken", "Histogram", "Bracket", "Listed", "Cut", "Chosen"), "*i32"),
    **dict.fromkeys(("TopK", "Seed", "Position", "Weights", "Token", "Total", "Slot", "Tokens"), "*i64"),
    **dict.fromkeys(("First", "Draft", "Drawn", "Accepted", "RowTopK", "RowSeed", "RowPosition"), "*i64"),
    "RowMinP": "*fp32",
    "History": "*i16",
    **dict.fromkeys(("vocab", "stride", "mask_stride", "probability_stride", "capacity", "groups"), "i32:16"),
    **dict.fromkeys(("chunks", "n", "requests"), "i32"),
}
MOE = {
    **dict.fromkeys(("X", "Weight", "Out", "Parts"), "*bf16"),
    **dict.fromkeys(("Logits", "Weights"), "*fp32"),
    **dict.fromkeys(("Experts", "Pairs", "TileExpert", "Tiles", "Ids"), "*i32"),
    **dict.fromkeys(("columns", "depth", "hidden", "stride", "experts", "pairs"), "i32:16"),
}
ROPE = {
    **dict.fromkeys(("QKV", "QWeight", "KWeight", "Q", "Pool"), "*bf16"),
    **dict.fromkeys(("Cos", "Sin"), "*fp32"),
    "Slots": "*i64",
    **dict.fromkeys(("eps", "inverse_k_scale", "inverse_v_scale"), "fp32"),
    **dict.fromkeys(("layer", "tokens"), "i32"),
    **dict.fromkeys(("page_stride", "layer_stride"), "i32:16"),
}
NORM = {**dict.fromkeys(("X", "Weight", "Residual", "Out"), "*bf16"), "rows": "i32", "width": "i32:16", "eps": "fp32"}
FEW_ROWS = {
    **dict.fromkeys(("Weight", "X", "Bias"), "*bf16"),
    "rows": "i32",
    **dict.fromkeys(("width", "depth", "part_depth", "x_stride"), "i32:16"),
}


def kernel(
    fn, types: dict[str, str], constants: dict[str, object], warps: int, stages: int = 3, **options: object
) -> Variant:
    """A variant: called, it compiles ``fn``. Arguments that ``constants`` lacks get the type they have in ``types``."""

    def compiled(capability: int) -> Compiled:
        given = {**constants, "EARLY": capability >= 90} if "EARLY" in fn.arg_names else constants
        signature = {name: types[name] for name in fn.arg_names if name not in given}
        return inspect(fn, signature, given, warps, stages, capability=capability, **options)

    return warps, compiled


def sampler(fn, warps: int = sample.WARPS, **constants: object) -> Variant:
    """A kernel of the sampler with everything switched on, at a vocabulary of 128 Ki."""
    given = {"HAS_MASK": True, "HAS_MIN_P": True, "WITH_TOTALS": False, "CHUNKS": 32, "BLOCK": sample.BLOCK}
    given |= {"HAS_PENALTIES": True, "GROUPS": 1024, "GROUP": sample.GROUP, "FEW": sample.FEW, "FEW_PIVOTS": 16}
    given |= {"PIVOTS": 8 if fn is sample_bracket.bracket else 2, **constants}
    chosen = {name: value for name, value in given.items() if name in fn.arg_names}
    return kernel(fn, SAMPLER, chosen, warps, enable_fp_fusion=False)


def plain(fn, **constants: object) -> Variant:
    """As ``sampler`` without mask and min_p: their arguments are None."""
    return sampler(fn, HAS_MASK=False, HAS_MIN_P=False, Bitmask=None, MinP=None, **constants)


def product(tile: moe.Config, gated: bool) -> Variant:
    """A grouped product in bf16."""
    constants = {
        "ROWS_SHARED": 8 if gated else 1,
        "GATED": gated,
        "EVEN_DEPTH": True,
        "PRECISION": "tf32",
        "BLOCK_M": tile.rows,
        "BLOCK_N": tile.gate_up_columns if gated else tile.down_columns,
        "BLOCK_K": tile.depth,
        "TILES_TOGETHER": moe.TILES_TOGETHER,
    }
    return kernel(moe._grouped_product, MOE, constants, tile.warps, tile.stages)


def rotation(group: int, head_dim: int, tokens: int, pool: str = "*bf16", norm: bool = True) -> Variant:
    """The kernel between projection and attention."""
    constants: dict[str, int] = {
        "HAS_Q_NORM": norm,
        "HAS_K_NORM": norm,
        "KV_HEADS": 8,
        "GROUP": group,
        "GROUP_BLOCK": 1 << (group - 1).bit_length(),
        "PAGE_SIZE": 64,
        "HEAD_DIM": head_dim,
        "HALF_BLOCK": 1 << (head_dim // 2 - 1).bit_length(),
        "TOKENS": tokens,
    }
    warps = rope.warps(tokens * constants["GROUP_BLOCK"] * constants["HALF_BLOCK"])
    return kernel(rope._qk_norm_rope_kv_write, {**ROPE, "Pool": pool}, constants, warps)


def norm(block: int) -> Variant:
    """RMS norm with a residual."""
    constants = {"HAS_RESIDUAL": True, "PARTS": 1, "BLOCK": block}
    return kernel(rms_norm._rms_norm, NORM, constants, rms_norm.warps(block))


def few_rows(rows: int, tile: linear.Config, gated: bool) -> Variant:
    """A product of few rows."""
    constants = {
        "GATED": gated,
        "HAS_BIAS": False,
        "Bias": None,
        "ROWS": rows,
        "OUTPUTS": tile.outputs,
        "DEPTH": tile.depth,
        "STAGES": tile.stages,
        "PREFETCH": linear.PREFETCH,
    }
    box = f"tensordesc<bf16[{tile.outputs}, {tile.depth}]>"
    types = {**FEW_ROWS, "Boxes": box, "Out": "*bf16" if tile.parts == 1 else "*fp32"}
    return kernel(linear._few_rows, types, constants, linear.WARPS, tile.stages)


TILES = {f"{tile.rows} x {tile.gate_up_columns}": tile for _, tile in moe.CONFIGS}
VARIANTS: dict[str, Variant] = {
    "rms norm 1024": norm(1024),
    "rms norm 4096": norm(4096),
    "rows finite": kernel(
        rows_finite._rows_finite,
        {"X": "*fp32", "Out": "*i1", "width": "i32:16", "stride": "i32:16"},
        {"BLOCK": rows_finite.BLOCK},
        rows_finite.WARPS,
    ),
    "silu and mul": kernel(
        silu_and_mul._silu_and_mul,
        {"GateUp": "*bf16", "Out": "*bf16", "width": "i32:16"},
        {"BLOCK": silu_and_mul.BLOCK},
        silu_and_mul.WARPS,
    ),
    "page copy": kernel(
        page_copy._page_copy,
        {"Pool": "*i64", "Source": "*i64", "Target": "*i64", "size": "i32:16"},
        {"BLOCK": page_copy.BLOCK},
        page_copy.WARPS,
    ),
    "rope g4 d128": rotation(4, 128, 4),
    "rope g7 d128 one token": rotation(7, 128, 1),
    "rope g2 d80": rotation(2, 80, 4, norm=False),
    "rope g4 d128 fp8": rotation(4, 128, 4, pool="*fp8e4nv"),
    "sample adjust": sampler(penalties._adjust),
    "sample bias": sampler(penalties._bias, 1, BLOCK=256),
    "sample count": sampler(penalties._count_tokens, 1, BLOCK=256),
    "sample largest": sampler(sample_bracket.largest_of_chunks),
    "sample measure": sampler(sample_bracket.measure),
    "sample bracket": sampler(sample_bracket.bracket),
    "sample collect": sampler(sample_cut.collect, sample.COLLECT_WARPS),
    "sample finish": sampler(sample_cut.finish, BLOCK=sample.REGISTERS),
    "sample plain measure": plain(sample_bracket.measure),
    "verify spread": sampler(verify._spread, 1, REQUESTS=256),
    "verify scan": sampler(verify._scan, 1, WITH_PROBABILITIES=True),
    "verify residual": sampler(verify._residual, verify.WARPS, BLOCK=verify.BLOCK),
    "verify replace": sampler(verify._replace, 1),
    "moe route": kernel(moe._route, MOE, {"TOP_K": 8, "RENORMALISE": True, "EXPERTS": 128}, 1),
    "moe align": kernel(moe._align, MOE, {"ROWS": 16, "EXPERTS": 128, "BLOCK": moe.PAIR_BLOCK}, 8),
    "moe combine": kernel(moe._combine, MOE, {"TOP_K": 8, "BLOCK": moe.COMBINE_BLOCK}, 4),
    **{
        f"linear {rows} {name}": few_rows(rows, linear.config(rows, *shape), shape[2])
        for name, shape in {"gate up": (14336, 4096, True, False), "down": (4096, 14336, False, True)}.items()
        for rows in (16, 64)
    },
    "linear 16 qkv": few_rows(16, linear.config(1, 6144, 4096, False, False), False),
    **{f"moe gate up {name}": product(tile, True) for name, tile in TILES.items()},
    **{f"moe down {name}": product(tile, False) for name, tile in TILES.items()},
}
OPCODES = ("HGMMA", "HMMA", "LDGSTS", "UTMALDG", "UBLKPF", "ACQBULK")
ON_AMPERE = ("rope g4 d128", "moe down 64 x 64")


def main() -> None:
    for name, (warps, compiled) in VARIANTS.items():
        for capability in (90, 80) if name in ON_AMPERE else (90,):
            label = name if capability == 90 else f"ampere {name}"
            if len(sys.argv) == 1 or label in sys.argv[1:]:
                report(label, compiled(capability), warps)


def report(name: str, found: Compiled, warps: int) -> None:
    """Print one line."""
    figures = {
        "name": name,
        "registers": found.registers,
        "stack": found.stack,
        "spills": found.spills,
        "shared": found.shared_bytes,
        "programs": found.programs_per_sm(warps),
        "wide_loads": len(re.findall(r"\bLDG\.E\.128\b", found.sass)),
        "wide_stores": len(re.findall(r"\bSTG\.E\.128\b", found.sass)),
        "fused": found.ptx.count("fma.rn.f32"),
        **{opcode: found.instructions[opcode] for opcode in OPCODES},
    }
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
