"""What the compiler makes of the kernels beside attention, without a GPU. Figures are those of Triton 3.6.0; another
version may need new ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Most registers per thread, programs per SM at least.
LIMITS = {
    "rms norm 1024": (40, 24),
    "rms norm 4096": (40, 6),
    "rows finite": (48, 4),
    "silu and mul": (32, 16),
    "page copy": (32, 8),
    "rope g4 d128": (40, 12),
    "ampere rope g4 d128": (40, 12),
    "rope g7 d128 one token": (48, 16),
    "rope g2 d80": (48, 16),
    "rope g4 d128 fp8": (40, 12),
    "sample adjust": (48, 2),
    "sample bias": (80, 16),
    "sample count": (64, 32),
    "sample largest": (32, 4),
    "sample measure": (64, 2),
    "sample bracket": (40, 3),
    "sample collect": (112, 2),
    "sample finish": (128, 1),
    "sample plain measure": (64, 2),
    "verify spread": (32, 32),
    "verify scan": (64, 32),
    "verify residual": (80, 3),
    "verify replace": (32, 32),
    "linear 16 gate up": (48, 1),
    "linear 16 down": (40, 2),
    "linear 16 qkv": (40, 2),
    "linear 64 gate up": (168, 1),
    "linear 64 down": (80, 1),
    "moe route": (40, 48),
    "moe align": (64, 4),
    "moe combine": (32, 16),
    "moe gate up 16 x 32": (64, 3),
    "moe gate up 16 x 64": (80, 4),
    "moe gate up 64 x 64": (128, 2),
    "moe gate up 128 x 128": (255, 1),
    "moe down 16 x 32": (56, 6),
    "moe down 16 x 64": (56, 7),
    "moe down 64 x 64": (128, 2),
    "moe down 128 x 128": (128, 2),
    "ampere moe down 64 x 64": (168, 3),
}
# Buffers that the pipeline of a grouped product has (a lost pipeline is less shared memory, not an error).
SHARED_BYTES = {
    "linear 16 gate up": 4 * 2 * (16 + 2 * 64) * 128,
    "linear 16 down": 4 * 2 * (16 + 64) * 128,
    "linear 16 qkv": 4 * 2 * (16 + 64) * 128,
    "linear 64 gate up": 4 * 2 * (64 + 2 * 128) * 64,
    "linear 64 down": 4 * 2 * (64 + 64) * 128,
    "moe gate up 16 x 32": 3 * 2 * (16 + 64) * 128,
    "moe gate up 16 x 64": 3 * 2 * (16 + 128) * 64,
    "moe gate up 64 x 64": 4 * 2 * (64 + 128) * 64,
    "moe gate up 128 x 128": 3 * 2 * (128 + 256) * 64,
    "moe down 16 x 32": 3 * 2 * (16 + 32) * 128,
    "moe down 16 x 64": 3 * 2 * (16 + 64) * 64,
    "moe down 64 x 64": 4 * 2 * (64 + 128) * 64,
    "moe down 128 x 128": 3 * 2 * (128 + 128) * 64,
    "ampere moe down 64 x 64": 3 * 2 * (64 + 128) * 64,
}
# Bound by memory and aligned: 16 bytes a thread at once.
WIDE_LOADS = {
    "rms norm 1024", "rms norm 4096", "silu and mul", "page copy", "rope g4 d128", "ampere rope g4 d128",
    "rope g7 d128 one token", "rope g2 d80", "rope g4 d128 fp8", "sample adjust", "sample largest", "sample measure",
    "sample collect", "verify residual", "moe combine",
}  # fmt: skip
WIDE_STORES = {
    "rms norm 1024", "rms norm 4096", "silu and mul", "page copy", "rope g4 d128", "ampere rope g4 d128",
    "rope g7 d128 one token", "rope g2 d80", "rope g4 d128 fp8", "sample adjust", "moe combine",
}  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, dict]:
    """Figures of each variant, compiled anew in a process without the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, "-m", "tests.triton.compile_rest"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {figures["name"]: figures for figures in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", LIMITS)
def test_no_spills_and_enough_programs(compiled, name) -> None:
    found = compiled[name]
    registers, programs = LIMITS[name]
    assert found["stack"] == 0 and found["spills"] == 0
    assert found["registers"] <= registers
    assert found["programs"] >= programs


@pytest.mark.parametrize("name", sorted(WIDE_LOADS | WIDE_STORES))
def test_16_bytes_at_once(compiled, name) -> None:
    assert name not in WIDE_LOADS or compiled[name]["wide_loads"] > 0
    assert name not in WIDE_STORES or compiled[name]["wide_stores"] > 0


@pytest.mark.parametrize("name", [name for name in LIMITS if name.startswith(("sample", "verify"))])
def test_products_and_sums_are_rounded_apart(compiled, name) -> None:
    """A fused multiply-add would give other noise and weights than the reference's."""
    assert compiled[name]["fused"] == 0


@pytest.mark.parametrize("name", SHARED_BYTES)
def test_grouped_products_use_tensor_cores_and_a_pipeline(compiled, name) -> None:
    found = compiled[name]
    assert found["LDGSTS"] > 0
    assert found["HMMA" if name.startswith("ampere") or " 16 x " in name else "HGMMA"] > 0
    assert abs(found["shared"] - SHARED_BYTES[name]) <= 1024


@pytest.mark.parametrize("name", [name for name in LIMITS if name.startswith("linear")])
def test_weights_come_by_the_copy_engine_and_before_their_turn(compiled, name) -> None:
    """Boxes of weights, their first ones asked for before the wait for the kernel before."""
    found = compiled[name]
    assert found["UTMALDG"] > 0 and found["UBLKPF"] > 0 and found["ACQBULK"] > 0


def test_every_variant_has_limits(compiled) -> None:
    assert set(compiled) == set(LIMITS)
