"""Other implementations in the same run: torch, vLLM's and SGLang's Triton kernels, FlashInfer, transformers.

Attention peers compute the same step over the same keys as the own kernel, and what they give is compared with what
that gives before anything is timed; both are timed right after one another. A peer that is not there, fails, or takes
too long is printed and is no failure of ours.

Nothing of them is in this repository. ``--peers FOLDER`` holds packages as they would be installed: ``flashinfer`` with
its compiled modules below ``data/aot`` and what it imports, the files of ``peers_triton.VLLM`` and ``.SGLANG`` at those
paths, and ``msgspec`` where the own engine does not find it.
"""

import gc
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import FrameType

import torch

from benchmarks.gpu import peers_flashinfer, peers_torch, peers_transformers, peers_triton
from benchmarks.gpu.attention import B64, DECODE, SHARED, machine
from benchmarks.gpu.cases import Case, Step, dry, layers_beyond_l2
from benchmarks.gpu.device import Took
from benchmarks.gpu.engine import decode_step
from benchmarks.gpu.models import config_of, make_model
from benchmarks.gpu.peers_transformers import Job
from benchmarks.gpu.peers_triton import NotGiven
from benchmarks.gpu.stage import Bench

Layer = Callable[[int], torch.Tensor]
CLOSE = 0.02  # relative error (L2) between two that compute in 16 bits

DECODES = [case for _, case, _ in DECODE if case in (B64,) or case.name.startswith(("B=16 ", "B=256", "B=1 "))]
CASCADE = SHARED[0][1]
CHUNK = Case("chunk 2k over 4k", [2048], [4096])


class TooSlow(BaseException):
    """A peer took longer than it may. Not an ``Exception``: what guards calls inside of it must not catch it."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises ``TooSlow`` inside when that is over. The stage's own limit, where it comes first, stays as it is."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlow

    began = time.monotonic()
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if left and left <= seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.1, left - (time.monotonic() - began)))


def attempt(name: str, bench: Bench, seconds: float, peer: Callable[[], object]) -> bool:
    """A peer, for so long at most; says what became of it where that is not a row. Whether it ended well."""
    words = ""
    try:
        with at_most(bench.pick(1, 10) * seconds):
            peer()
    except TooSlow:
        words = f"stopped after {seconds:.0f} s"
    except NotGiven as missing:
        words = f"not given ({missing})"
    except Exception as error:
        words = f"{type(error).__name__} {' '.join(str(error).split())[:200]}"
    if words:
        print(f"  {name}: {words}", flush=True)
    bench.gpu.release()
    return not words


def attention(bench: Bench, case: Case, name: str, least: float | None, prepare: Callable[[Step], Layer]) -> None:
    """A layer of the peer against one of ours."""
    small = dry(case, bench)
    step = Step(small, layers_beyond_l2(small, bench), bench, machine=machine(bench))
    run = prepare(step)
    expected = step.run(1).double()
    wrong = float((run(1).view_as(expected).double() - expected).norm() / expected.norm())
    if not wrong < CLOSE:  # NaN too
        raise ValueError(f"differs from ours by {wrong:.3g}")
    own = bench.gpu.timed(step.calls())
    took = bench.gpu.timed([partial(run, layer) for layer in range(step.layers)])
    bench.table.ratio("", case.name, own, name, took, least)


def kernels(bench: Bench) -> None:
    """Attention of torch, vLLM and SGLang. The deadlines are for compiling: a row takes much less than a second."""
    folder = Path(bench.peers)
    vllm = partial(peers_triton.vllm_unified, folder=folder)
    sglang = partial(peers_triton.sglang_decode, folder=folder)
    for case in DECODES[: bench.pick(len(DECODES), 1)]:
        torch_least = 4.0 if len(case.counts) == 1 else 1.5 if case is B64 else None
        peers = (
            ("SDPA contiguous", torch_least, peers_torch.contiguous),
            ("vLLM unified", 1.25, vllm),
            ("SGLang decode", 1.15, sglang),
        )
        for name, least, prepare in peers:
            attempt(f"{name}, {case.name}", bench, 10, partial(attention, bench, case, name, least, prepare))
    attempt("vLLM unified, chunk", bench, 10, partial(attention, bench, CHUNK, "vLLM unified", 2.0, vllm))

    def flex() -> None:
        with torch.inference_mode(False), torch.no_grad():  # what it compiles takes no tensors of that mode
            attention(bench, B64, "flex, paged", 1.3, peers_torch.flex_paged)

    attempt("flex, paged", bench, 20, flex)


def flashinfer(bench: Bench) -> None:
    """FlashInfer's kernels, each way that fits a case."""
    folder = Path(bench.peers)
    print(f"  FlashInfer: {len(peers_flashinfer.compiled(folder))} compiled modules given", flush=True)
    if bench.gpu.dry:
        return  # it wants a device of its own
    if bench.peers and bench.peers not in sys.path:
        sys.path.append(bench.peers)
    if not attempt("FlashInfer, import", bench, 20, peers_flashinfer.package):
        return

    def one(case: Case, name: str, least: float | None, prepare: Callable[[Step], Layer]) -> None:
        attempt(f"{name}, {case.name}", bench, 10, partial(attention, bench, case, name, least, prepare))

    for case in DECODES:
        least = 1.0 if len(case.counts) > 1 else 0.95
        one(case, "FlashInfer", least, peers_flashinfer.decode)
        one(case, "FlashInfer CUDA", least, partial(peers_flashinfer.decode, tensor_cores=False))
    one(CASCADE, "FI cascade", 1.25, peers_flashinfer.cascade)
    one(CHUNK, "FI prefill fa2", 1.1, partial(peers_flashinfer.prefill, backend="fa2"))
    for order in ("joint", "top_k_first"):
        attempt(f"FlashInfer sampler, {order}", bench, 10, partial(sampler, bench, order))
    one(CHUNK, "FI prefill fa3", 0.75, partial(peers_flashinfer.prefill, backend="fa3"))


def sampler(bench: Bench, order: str) -> None:
    """Ours does more: min-p, a mask and a seed for each row, too."""
    from benchmarks.gpu.operations import sampler_calls

    name, calls = next(iter(sampler_calls(bench).items()))
    logits = [torch.randn(bench.pick(64, 2), bench.pick(128256, 500), device=bench.device) * 3 for _ in calls]
    theirs = peers_flashinfer.sampler(logits, order)
    chosen = theirs[0]().long()
    rank = (logits[0] > logits[0].gather(1, chosen[:, None])).sum(1)
    if int(rank.max()) >= 50:
        raise ValueError(f"drew a token of rank {int(rank.max())} with top-k 50")
    own = bench.gpu.timed(calls * 2)
    bench.table.ratio("", f"sampler {name}", own, f"FI {order}", bench.gpu.timed(theirs * 2), 2.0)


def engines(bench: Bench) -> None:
    """The whole engine against transformers as one: a decode step of 64 requests, host included in both."""
    if find_spec("msgspec") is None and bench.peers:
        sys.path.append(bench.peers)
    if find_spec("msgspec") is None:
        print("  engines: left out, msgspec is not installed", flush=True)
        return
    requests, new = bench.pick(64, 1), bench.pick(40, 3)
    alone, common, rest = bench.pick(512, 20), bench.pick(8192, 16), bench.pick(256, 4)
    plain = Job(f"1B B={requests}, {alone} each", requests, alone, 0, new)
    sharing = Job(f"1B B={requests}, {common} shared + {rest}", requests, common + rest, common, new)
    peers = (
        (plain, "generate", 3.0, peers_transformers.static_cache),
        (sharing, "generate", 8.0, peers_transformers.static_cache),
        (plain, "generate_batch", 10.0, peers_transformers.continuous_batching),
    )
    for job, name, least, peer in peers[1:2] if bench.gpu.dry else peers:
        attempt(f"{name}, {job.name}", bench, 30, partial(engine, bench, job, name, least, peer))


def engine(bench: Bench, job: Job, name: str, least: float, peer: Callable[[Bench, Job], Took]) -> None:
    """A token of all requests: ours with scheduler, cache and draw, and the peer's."""
    model, _ = make_model(config_of("1B", bench), bench)
    own = decode_step(bench, model, job.requests, job.prompt, job.shared, job.new)
    del model
    bench.gpu.release()
    torch.compiler.reset()  # a second shape would be compiled for any shape
    gc.collect()
    with torch.inference_mode(False), torch.no_grad():  # it has threads and compiles: neither knows that mode
        took = peer(bench, job)
    bench.table.ratio("", job.name, own, name, took, least)
