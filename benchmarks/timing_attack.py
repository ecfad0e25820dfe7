"""Can a tenant find out by timing what another one has sent?   python -m benchmarks.timing_attack [--rounds 400]

In each round a victim sends a prompt of 500 tokens. Then two attackers each try two prompts, in random order: the
victim's, and another one of the same length; one attacker is another tenant, one is a second key of the victim's own
tenant. What they see is the time to the first token. Printed is, for each, the area under the ROC curve of telling the
two apart by it: 0.5 is guessing. The second attacker shows that the measurement would see a difference. Real engine
process, bundled model.
"""

import argparse
import asyncio
import random
import time
from pathlib import Path

import numpy as np

import backend
from backend.engine.messages import Output, Submit
from backend.engine.options import EngineOptions
from backend.engine.process_client import ProcessClient, start_engine
from scheduler.plan import Sampling

TOKENS = 500


async def first_token_ms(engine: ProcessClient, tenant: str, prompt: bytes) -> float:
    """Milliseconds from handing a request over to its first token, which is its only one."""
    submit = Submit(engine.next_request_id(), prompt, 1, Sampling(temperature=0.0), tenant=tenant)
    began = time.perf_counter()
    took = 0.0
    async for event in engine.generate(submit):
        if isinstance(event, Output) and event.tokens and not took:
            took = 1000 * (time.perf_counter() - began)
    return took


def area(fast: list[float], slow: list[float]) -> float:
    """How often one of ``slow`` takes longer than one of ``fast`` (Mann and Whitney 1947), equals counted half."""
    ordered = np.sort(np.array(fast))
    below = np.searchsorted(ordered, slow, "left")
    equal = np.searchsorted(ordered, slow, "right") - below
    return float((below + equal / 2).sum() / (len(fast) * len(slow)))


async def measure(rounds: int) -> None:
    """All rounds."""
    folder = Path(backend.__file__).parent / "demo" / "model"
    engine = await start_engine(EngineOptions(model=str(folder)))
    chance = random.Random(0)

    def prompt() -> bytes:
        ids = [chance.randrange(3, engine.info.vocab_size) for _ in range(TOKENS)]
        return np.array(ids, "<u4").tobytes()

    times: dict[tuple[str, bool], list[float]] = {}
    try:
        for number in range(rounds + 5):
            secret = prompt()
            await first_token_ms(engine, "victim", secret)
            # The insider last: what it sends is cached under the victim's name, too.
            for attacker in ("stranger", "victim"):
                tries = [(True, secret), (False, prompt())]
                chance.shuffle(tries)
                for hit, guess in tries:
                    took = await first_token_ms(engine, attacker, guess)
                    if number >= 5:  # the first ones warm up
                        times.setdefault((attacker, hit), []).append(took)
    finally:
        await engine.close()
    for attacker, what in (("stranger", "another tenant"), ("victim", "the same tenant")):
        hits, misses = times[attacker, True], times[attacker, False]
        print(
            f"{what:16} AUC {area(hits, misses):.3f}   first token p50: the victim's prompt {np.median(hits):6.2f} ms, "
            f"another {np.median(misses):6.2f} ms   ({rounds} rounds)"
        )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=400)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
