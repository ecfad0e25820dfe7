"""What the compiler makes of the attention kernels, without a GPU: no spills, the pipeline's buffers, the instructions.

A pipeline that is lost shows as shared memory (one buffer instead of several), not as an error, so shared memory must
be what the expected buffers take, to within 1 KiB. Figures are those of Triton 3.6.0: another version may need others.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
KIB = 1024


@dataclass(frozen=True)
class Expected:
    """Most registers per thread, shared memory in KiB, programs per SM at least, and the instructions that multiply and
    that fetch."""

    registers: int
    shared_kib: float
    programs: int
    multiply: str
    fetch: str


# 64 keys of 128 lanes in bf16 are 16 KiB. Narrow: two buffers each of K and V, and the weights on their way between
# warps. Wide: three of each and the queries; 208 registers in eight warps leave room for a narrow program beside it.
EXPECTED = {
    "narrow 16 d128": Expected(136, 103, 2, "HMMA", "UTMALDG"),
    "narrow 16 beside": Expected(136, 71, 3, "HMMA", "UTMALDG"),
    "narrow 32 d128": Expected(136, 77, 2, "HMMA", "UTMALDG"),
    "narrow 16 d64": Expected(128, 53, 4, "HMMA", "UTMALDG"),
    "narrow 16 d80": Expected(144, 103, 2, "HMMA", "UTMALDG"),
    "narrow 32 tree": Expected(144, 77, 2, "HMMA", "UTMALDG"),
    "narrow 16 fp8": Expected(208, 55, 4, "HMMA", "UTMALDG"),
    "narrow 16 fp8 page 16": Expected(216, 56, 4, "HMMA", "LDGSTS"),
    "narrow 16 page 16": Expected(168, 102, 2, "HMMA", "LDGSTS"),
    "narrow 16 page 16 d80": Expected(208, 102, 2, "HMMA", "LDGSTS"),
    "wide 128 d128": Expected(216, 129, 1, "HGMMA", "UTMALDG"),
    "wide 128 d64": Expected(168, 65, 1, "HGMMA", "UTMALDG"),
    "wide 128 d64 page 16": Expected(128, 64.5, 2, "HGMMA", "LDGSTS"),
    "wide 128 d64 tree": Expected(200, 65, 1, "HGMMA", "UTMALDG"),
    "wide 128 fp8": Expected(232, 81, 1, "HGMMA", "UTMALDG"),
    "wide 64 d128": Expected(224, 113, 2, "HGMMA", "UTMALDG"),
    "wide 64 tree": Expected(232, 113, 2, "HGMMA", "UTMALDG"),
    "wide 128 page 16": Expected(224, 129, 1, "HGMMA", "LDGSTS"),
    "narrow 16 fp32": Expected(136, 28, 3, "HMMA", "UTMALDG"),
    "ampere narrow 16": Expected(128, 70, 3, "HMMA", "LDGSTS"),
    "ampere wide 128": Expected(255, 64, 1, "HMMA", "LDGSTS"),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, dict]:
    """Figures of each variant, compiled anew in a process without the interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    command = [sys.executable, "-m", "tests.triton.compile_attention"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {figures["name"]: figures for figures in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("name", EXPECTED)
def test_attention(compiled, name) -> None:
    found, expected = compiled[name], EXPECTED[name]
    assert found["stack"] == 0 and found["spills"] == 0
    assert found["registers"] <= expected.registers
    assert abs(found["shared"] - expected.shared_kib * KIB) <= KIB
    assert found["programs"] >= expected.programs
    assert found[expected.multiply] > 0
    assert found[expected.fetch] > 0


def test_merge(compiled) -> None:
    found = compiled["merge"]
    assert found["stack"] == 0 and found["registers"] <= 40 and found["LDGSTS"] > 0


def test_every_variant_is_expected(compiled) -> None:
    assert set(compiled) == {*EXPECTED, "merge"}
