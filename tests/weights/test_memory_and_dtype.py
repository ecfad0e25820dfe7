"""What is free, and which dtype ``auto`` means."""

import pytest
import torch

from backend.weights import dtype as dtype_module
from backend.weights import memory
from backend.weights.dtype import choose_dtype

CPU = torch.device("cpu")


def test_available_memory_is_plausible() -> None:
    assert 1 << 20 < memory.available_bytes(CPU) < 1 << 50


def test_control_group_limit_counts(tmp_path, monkeypatch) -> None:
    (tmp_path / "memory.max").write_text("3000000\n")
    (tmp_path / "memory.current").write_text("2000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_bytes(CPU) == 1_500_000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.available_bytes(CPU) > 1_500_000


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("native", [True, False])
def test_auto(monkeypatch, native, fast) -> None:
    monkeypatch.setattr(dtype_module, "computes", lambda dtype, device: native)
    monkeypatch.setattr(dtype_module, "bfloat16_is_faster", lambda: fast)
    assert choose_dtype("auto", torch.float32, CPU) == torch.float32
    assert choose_dtype("auto", torch.float16, CPU) == torch.float32
    assert choose_dtype("auto", torch.bfloat16, CPU) == (torch.bfloat16 if native or fast else torch.float32)
    assert choose_dtype("auto", torch.float16, torch.device("cuda")) == torch.float16
    assert choose_dtype("float16", torch.float32, CPU) == torch.float16
