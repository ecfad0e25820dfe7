"""Steps in the fixed memory of a graph give the tokens of plain ones. The capture is left out; kernels run in Triton's
interpreter, products in torch."""

import pytest
import torch

from backend.engine import graphs
from backend.engine.graphs import SIZES, Eager, StepGraphs
from backend.engine.runner import Runner
from backend.models.config import ModelConfig, RopeConfig
from backend.models.decoder import Decoder
from kernels.cpu import library
from kernels.triton import fixed_plan
from scheduler.plan import Sampling
from tests.engine.driver import GREEDY, Driver
from tests.triton.test_attention import SHARING

PAGE = 16
CONFIG = ModelConfig(
    architecture="",
    vocab_size=31,
    hidden_size=32,
    intermediate_size=48,
    layers=1,
    heads=2,
    kv_heads=1,
    head_dim=32,
    norm_eps=1e-5,
    max_context=48,
    rope=RopeConfig(tuple(10000.0 ** (-i / 16) for i in range(16))),
    tied_embeddings=True,
    qk_norm=True,
)


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    """The Triton kernels, and the layouts that they read."""
    monkeypatch.setenv("BANYAN_TRITON", "1")
    monkeypatch.setattr(library, "library", lambda: None)


def make_runner():
    """A random model, the same every time."""
    model = Decoder(CONFIG, torch.float32, torch.device("cpu"))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.target.copy_(torch.randn(parameter.target.shape, generator=generator) * 0.3)
    model.prepare()
    return Runner(model, 60, PAGE, 5)


def generate(runner):
    """Outputs of requests of which two share a prompt's pages, one joins late."""
    driver = Driver(runner)
    hot = Sampling(temperature=0.8, seed=5)
    first = driver.sequence(0, list(range(18)))
    driver.finish([first], 2)
    company = [driver.warm(1, list(range(17)), first), driver.sequence(2, [5, 6], sampling=hot)]
    driver.finish([first, *company], 3)
    late = driver.sequence(3, list(range(3)), sampling=GREEDY)
    driver.finish([first, *company, late], 5)
    return [sequence.output for sequence in (first, *company, late)]


def test_padded_steps_in_fixed_memory_draw_the_same_tokens(monkeypatch) -> None:
    monkeypatch.setattr(fixed_plan, "SPARE", 0)
    monkeypatch.setattr(graphs, "CHUNK_SIZES", (4, 8, 12, 16, 20))
    plain = make_runner()
    assert isinstance(plain._passes, Eager)
    expected = generate(plain)
    captured, replayed = [], []

    def capture(step):
        captured.append(step)

        def replay():
            replayed.append(step)
            return step()

        return replay

    runner = make_runner()
    passes = StepGraphs(runner.model, runner.pool, 5, 3, capture)
    runner._passes = passes
    assert generate(runner) == expected
    assert generate(runner) == expected, "chunks are captured when they come again"
    assert len(replayed) > len(captured) >= 3
    assert {step.size.rows for step in passes._steps.values() if step.size.decode} == {1, 2, 4}
    assert {step.size.rows for step in passes._steps.values() if not step.size.decode} == {4, 8, 20}
    assert all(step.replay for step in passes._steps.values() if step.runs > 1)
    assert passes._sizes == [1, 2, 4, 5] and SIZES[:3] == (1, 2, 4)
    assert bool(runner.pool.storage.isfinite().all())


def test_a_slot_that_somebody_else_has_now_is_planned_anew(monkeypatch) -> None:
    """Two that share their first page, then two in the same slots that share nothing and are longer."""
    monkeypatch.setattr(fixed_plan, "SPARE", 0)
    monkeypatch.setattr(fixed_plan, "machine_of", lambda pool: SHARING)

    def outputs(runner):
        driver = Driver(runner)
        first = driver.sequence(0, list(range(18)))
        driver.finish([first], 2)
        second = driver.warm(1, list(range(17)), first)
        driver.finish([second], 2)
        driver.finish([first, second], 5)  # the last steps before are of both together
        others = [driver.sequence(slot, [(7 * i + 3 * slot) % 31 for i in range(24)]) for slot in (0, 1)]
        driver.finish(others, 4)
        return [sequence.output for sequence in (first, second, *others)]

    expected = outputs(make_runner())
    runner = make_runner()
    runner._passes = StepGraphs(runner.model, runner.pool, 5, 3, lambda step: step)
    assert outputs(runner) == expected
    assert any(room.slots for _, room in runner._passes._steps), "nothing was shared"


def test_padding_draws_for_nobody(monkeypatch) -> None:
    """Three requests in a step for four: the slot that has none keeps the token that it drew last."""
    monkeypatch.setattr(fixed_plan, "SPARE", 0)
    runner = make_runner()
    passes = StepGraphs(runner.model, runner.pool, 5, 3, lambda step: step)
    runner._passes = passes
    passes.last[0] = 29
    driver = Driver(runner)
    sequences = [driver.sequence(slot, [slot, 5 + slot]) for slot in (1, 2, 3)]
    driver.finish(sequences, 3)
    assert any(step.size.decode and step.size.rows == 4 for step in passes._steps.values())
    assert passes.last[:4].tolist() == [29, *(sequence.output[-1] for sequence in sequences)]


def test_a_draw_that_a_captured_step_cannot_make_follows_behind_it() -> None:
    """A bias; the neighbour's draws are as without it."""
    runner = make_runner()
    runner._passes = StepGraphs(runner.model, runner.pool, 5, 3, lambda step: step)
    driver = Driver(runner)
    biased = Sampling(temperature=0.0, logit_bias={3: 100.0})
    sequences = [driver.sequence(0, [1, 5], sampling=biased), driver.sequence(1, [2, 6])]
    driver.finish(sequences, 3)
    assert sequences[0].output == [3, 3, 3]
    plain = Driver(make_runner())
    alone = plain.sequence(1, [2, 6])
    plain.finish([alone], 3)
    assert sequences[1].output == alone.output
