"""FlashInfer over our pages, its kernels compiled before: decode, the cascade of three launches, prefill, the sampler.

The package and a compiled module for each kernel are brought along (``flashinfer/data/aot``); nothing is compiled here.
"""

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.cases import Step
from benchmarks.gpu.device import Call
from benchmarks.gpu.peers_triton import NotGiven

Layer = Callable[[int], torch.Tensor]
WORKSPACE = 256 << 20


def package() -> Any:
    """FlashInfer, which must not begin to compile what is missing: that takes minutes."""
    os.environ.setdefault("FLASHINFER_DISABLE_JIT", "1")
    if find_spec("flashinfer") is None:
        raise NotGiven("flashinfer")
    import flashinfer

    return flashinfer


def compiled(folder: Path) -> list[str]:
    """Names of the kernels that were brought along."""
    return sorted(path.stem for path in folder.glob("flashinfer/data/aot/*/*.so"))


def tables(step: Step, first: int = 0) -> list[torch.Tensor]:
    """What ``plan`` takes for each request's pages from page ``first``: where they begin, pages, keys in the last."""
    size = step.case.page_size
    keys = step.counts + step.starts - first * size
    used = -(-keys // size)
    begins = np.concatenate([[0], used.cumsum()])
    pages = np.concatenate([table[first : first + n] for table, n in zip(step.tables, used, strict=True)])
    there = (begins, pages, (keys - 1) % size + 1)
    return [torch.from_numpy(values.astype(np.int32)).to(step.q.device) for values in there]


def sizes(step: Step) -> tuple[int, int, int, int]:
    """Query heads, KV heads, head_dim, page size."""
    case = step.case
    return case.group * case.kv_heads, case.kv_heads, case.head_dim, case.page_size


def kv(step: Step, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a layer, [pages, kv_heads, page, head_dim]."""
    return step.pool[:, layer, 0], step.pool[:, layer, 1]


def workspace(step: Step) -> torch.Tensor:
    """Memory that its plans divide."""
    return torch.zeros(WORKSPACE, dtype=torch.uint8, device=step.q.device)


def decode(step: Step, tensor_cores: bool = True) -> Layer:
    """One token of each request."""
    wrapper = package().BatchDecodeWithPagedKVCacheWrapper(
        workspace(step), "HND", use_tensor_cores=tensor_cores, backend="fa2"
    )
    dtype = step.q.dtype
    wrapper.plan(*tables(step), *sizes(step), q_data_type=dtype, kv_data_type=dtype)
    return lambda layer: wrapper.run(step.q, kv(step, layer))


def cascade(step: Step) -> Layer:
    """One token of each request over a common prefix: attention to it, to the rest, and a merge."""
    ((_, common),) = step.case.levels
    pages, requests = common // step.case.page_size, len(step.counts)
    wrapper = package().MultiLevelCascadeAttentionWrapper(2, workspace(step), "HND")
    for level in wrapper._batch_prefill_wrappers:  # its own choice, fa3, does not split the keys of a few rows
        level._backend = "fa2"

    def there(*values: int) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=step.q.device)

    prefix = (there(0, pages), there(*step.tables[0, :pages].tolist()), there(step.case.page_size))
    rows = (there(0, requests), there(*range(requests + 1)))
    begins, own, last = zip(prefix, tables(step, pages), strict=True)
    wrapper.plan(rows, begins, own, last, *sizes(step), q_data_type=step.q.dtype)
    return lambda layer: wrapper.run(step.q, kv(step, layer))


def prefill(step: Step, backend: str) -> Layer:
    """Chunks over cached keys."""
    wrapper = package().BatchPrefillWithPagedKVCacheWrapper(workspace(step), "HND", backend=backend)
    begins = np.concatenate([[0], step.counts.cumsum()]).astype(np.int32)
    rows = torch.from_numpy(begins).to(step.q.device)
    wrapper.plan(rows, *tables(step), *sizes(step), causal=True, q_data_type=step.q.dtype)
    return lambda layer: wrapper.run(step.q, kv(step, layer))


def sampler(logits: list[torch.Tensor], order: str) -> list[Call]:
    """Draws by temperature, top-k and top-p, a setting for each row. It takes one seed for the whole batch."""
    sampling = package().sampling
    rows, device = len(logits[0]), logits[0].device
    top_k = torch.full((rows,), 50, dtype=torch.int32, device=device)
    top_p = torch.full((rows,), 0.95, device=device)
    heat = torch.full((rows, 1), 0.8, device=device)
    draw = partial(sampling.top_k_top_p_sampling_from_logits, filter_apply_order=order, seed=7, offset=0)
    return [lambda x=x: draw(x / heat, top_k, top_p) for x in logits]  # type: ignore[misc]
