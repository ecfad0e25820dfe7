"""Triton kernels of vLLM and SGLang over our pages. Their files are brought along and loaded as they are; the few other
modules of theirs that the files import have stand-ins here, so that neither package is needed.

Each function returns a call for a layer that gives [tokens, heads, head_dim], as ``Step.run`` does.
"""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import triton

from benchmarks.gpu.cases import Step

Layer = Callable[[int], torch.Tensor]
VLLM = "vllm/v1/attention/ops"
SGLANG = "sglang/kernels/ops/attention"
# What the engines take where nothing else is said: parts of a request's keys, programs below which vLLM makes parts.
VLLM_PARTS, VLLM_LEAST_PROGRAMS = 16, 128
SGLANG_PARTS = 8


class NotGiven(Exception):
    """What a peer needs is not in the folder."""


@contextmanager
def loading() -> Iterator[None]:
    """Takes their modules' names away in the end: nobody else should think that the packages are there."""
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("vllm", "sglang")]:
            del sys.modules[name]


def stand_in(name: str, **members: Any) -> None:
    """A module of that name, with these members and nothing else."""
    sys.modules[name] = module = ModuleType(name)
    vars(module).update(members)


def packages(folder: Path, path: str) -> str:
    """Packages for ``path``, of which only the innermost finds files; its dotted name."""
    if not (folder / path).is_dir():
        raise NotGiven(path)
    parts = path.split("/")
    for end in range(1, len(parts) + 1):
        stand_in(".".join(parts[:end]), __path__=[str(folder / path)] if end == len(parts) else [])
    return ".".join(parts)


class KVQuantMode(IntEnum):
    """vLLM's, as far as its kernel asks."""

    NONE = 0
    FP8_PER_TENSOR = 1
    INT8_PER_TOKEN_HEAD = 2
    FP8_PER_TOKEN_HEAD = 3
    INT4_PER_TOKEN_HEAD = 4


@cache
@loading()
def vllm_module(folder: Path) -> Any:
    """Its file with the unified kernel."""
    name = packages(folder, VLLM)
    platform = SimpleNamespace(fp8_dtype=lambda: torch.float8_e4m3fn, is_device_capability_family=lambda family: False)
    stand_in("vllm.envs", VLLM_BATCH_INVARIANT=False)
    stand_in("vllm.logger", init_logger=logging.getLogger)
    stand_in("vllm.platforms", current_platform=platform)
    stand_in("vllm.triton_utils", tl=triton.language, triton=triton)
    stand_in("vllm.v1.kv_cache_interface", KVQuantMode=KVQuantMode)
    # ``import vllm.envs as envs`` asks the package for it.
    vars(sys.modules["vllm"])["envs"] = sys.modules["vllm.envs"]
    return import_module(f"{name}.triton_unified_attention")


@cache
@loading()
def sglang_modules(folder: Path) -> tuple[Any, Any]:
    """Its files with the decode kernels and with what decides on parts."""
    name = packages(folder, SGLANG)

    def no(*_: object) -> bool:
        return False

    def cores(device: int = 0) -> int:
        return int(torch.cuda.get_device_properties(device).multi_processor_count)

    stand_in("sglang.srt", __path__=[])
    stand_in("sglang.srt.environ", envs=SimpleNamespace())
    asked = dict.fromkeys(("is_hip", "is_gfx95_supported", "is_gfx1250_supported"), no)
    stand_in("sglang.srt.utils", get_device_core_count=cores, **asked)
    return import_module(f"{name}.decode_attention"), import_module(f"{name}.metadata")


def vllm_unified(step: Step, folder: Path) -> Layer:
    """vLLM's kernel for decodes and chunks alike, with the buffers that its backend gives it."""
    unified = vllm_module(folder).unified_attention
    device, case = step.q.device, step.case
    requests, heads = len(case.counts), step.q.shape[1]
    most = max(1, VLLM_LEAST_PROGRAMS // case.kv_heads)
    parts = (most, heads, VLLM_PARTS)
    part_out = torch.empty(*parts, triton.next_power_of_2(case.head_dim), device=device)
    part_max, part_sum = torch.empty(parts, device=device), torch.empty(parts, device=device)
    lengths = torch.from_numpy(step.counts + step.starts)
    told: dict[str, Any] = {
        "cu_seqlens_q": torch.nn.functional.pad(torch.tensor(case.counts).cumsum(0), (1, 0)).int().to(device),
        "max_seqlen_q": max(case.counts),
        "seqused_k": lengths.int().to(device),
        "max_seqlen_k": int(lengths.max()),
        "softmax_scale": case.head_dim**-0.5,
        "causal": True,
        "window_size": (-1, -1),
        "block_table": torch.from_numpy(step.tables).to(device),
        "softcap": 0,
        "q_descale": None,
        "k_descale": torch.ones(1, device=device).expand(requests, case.kv_heads),
        "v_descale": torch.ones(1, device=device).expand(requests, case.kv_heads),
        "seq_threshold_3D": most,
        "num_par_softmax_segments": VLLM_PARTS,
        "softmax_segm_output": part_out,
        "softmax_segm_max": part_max,
        "softmax_segm_expsum": part_sum,
    }
    out = torch.empty_like(step.q)

    def run(layer: int) -> torch.Tensor:
        keys, values = (step.pool[:, layer, which].transpose(1, 2) for which in (0, 1))
        unified(q=step.q, k=keys, v=values, out=out, **told)
        return out

    return run


def sglang_decode(step: Step, folder: Path) -> Layer:
    """SGLang's decode kernels; keys lie [slots, kv_heads, head_dim] there, so they are copied once."""
    decode, metadata = sglang_modules(folder)
    device, case = step.q.device, step.case
    requests, heads = len(case.counts), step.q.shape[1]
    lengths = torch.from_numpy(step.counts + step.starts).int()
    size = case.page_size
    slots = [
        (torch.from_numpy(table).long()[:, None] * size + torch.arange(size)).flatten()[:keys]
        for table, keys in zip(step.tables, lengths.tolist(), strict=True)
    ]
    indices = torch.cat(slots).to(device)
    first = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int().to(device)
    parts = torch.empty(requests, dtype=torch.int32, device=device)
    cores = torch.cuda.get_device_properties(device).multi_processor_count if step.q.is_cuda else 4
    rows = max(256, triton.next_power_of_2(requests))
    metadata.get_num_kv_splits_triton[(1,)](
        parts, lengths.to(device), requests, 1, heads, case.kv_heads, SGLANG_PARTS, cores, MAX_NUM_SEQ=rows
    )
    shape = (requests, heads, SGLANG_PARTS)
    logits, sums = torch.empty(*shape, case.head_dim, device=device), torch.empty(shape, device=device)
    pools = [
        [
            step.pool[:, layer, which].transpose(1, 2).reshape(-1, case.kv_heads, case.head_dim).contiguous()
            for which in (0, 1)
        ]
        for layer in range(step.layers)
    ]
    out = torch.empty_like(step.q)
    scale = case.head_dim**-0.5

    def run(layer: int) -> torch.Tensor:
        keys, values = pools[layer]
        told = (step.q, keys, values, out, first, indices, logits, sums, parts, SGLANG_PARTS, scale, 1.0, 1.0)
        decode.decode_attention_fwd(*told)
        return out

    return run
