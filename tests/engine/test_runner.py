"""The runner on a small random model: text does not depend on company, chunks or cache, slots are reset, one request's
defect stays its own."""

import resource
from pathlib import Path

import pytest
import torch

from backend.engine.kv_pool import KVPool, kv_bytes_per_page
from backend.engine.runner import Runner
from backend.errors import StartError
from backend.models import decoder
from backend.weights.load import load_checkpoint
from scheduler.plan import Chunk, Opened, Sampling, StepPlan
from tests.engine.driver import GREEDY, Driver, encode
from tests.models.checkpoints import Case, save

CASE = Case("demo-shape", "llama", 6, 3, 32, 600, {"tie_word_embeddings": True})
PAGE = 16
EXACT = torch.backends.mkl.is_available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo-shape")
    save(CASE, path)
    return path


@pytest.fixture
def driver(folder):
    return Driver(Runner(load_checkpoint(folder).model, 300, PAGE, 20))


def prompt(length: int, seed: int = 0) -> list[int]:
    return torch.randint(0, CASE.vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_text_alone_and_in_company(folder, dtype) -> None:
    """Logits are equal to the bit where that is worked out (see ``kernels.cpu.paged_attention``), tokens everywhere."""
    driver = Driver(Runner(load_checkpoint(folder, dtype).model, 300, PAGE, 20))
    hot = Sampling(temperature=1.3, top_p=0.9, top_k=100, seed=11)
    lengths, settings = (1, 15, 16, 17, 40, 200, 310), (GREEDY, hot)
    alone = []
    for number, length in enumerate(lengths):
        sequence = driver.sequence(0, prompt(length, number), sampling=settings[number % 2])
        driver.finish([sequence], 24)
        driver.release(sequence)
        alone.append(sequence)
    assert len({tuple(sequence.output) for sequence in alone}) == len(alone)
    assert all(len(set(sequence.output)) > 8 for sequence in alone)
    for chunk in (1, 7, 64):
        company = [
            driver.sequence(slot, prompt(length, slot), chunk, settings[slot % 2])
            for slot, length in enumerate(lengths)
        ]
        driver.finish(company, 24)
        for one, other in zip(alone, company, strict=True):
            assert one.output == other.output
            torch.testing.assert_close(
                torch.stack(other.logits), torch.stack(one.logits), atol=0 if EXACT else 1e-4, rtol=0
            )
            driver.release(other)
            driver.free += other.pages


@pytest.mark.parametrize("length", [31, 32, 33, 64])
@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_same_text_from_a_warm_cache(driver, length, chunk) -> None:
    """Also for a prompt that is cached whole, whose last token is computed and not written (``held``)."""
    cold = driver.sequence(0, prompt(length))
    driver.finish([cold], 20)
    before = driver.runner.pool.storage[cold.pages[: length // PAGE]].clone()
    warm = driver.warm(1, prompt(length), cold, chunk)
    assert warm.held == (1 if length % PAGE == 0 else 0)
    driver.finish([warm, driver.sequence(2, prompt(5))], 20)
    assert warm.output == cold.output
    assert torch.equal(driver.runner.pool.storage[cold.pages[: length // PAGE]], before)


def test_held_tokens_are_not_written(driver) -> None:
    cold = driver.sequence(0, prompt(32))
    driver.finish([cold], 1)
    shared = driver.runner.pool.storage[cold.pages[:2]]
    driver.runner.pool.storage[cold.pages[1], :, :, :, -1] = 0.25  # recognisable, and only readable if left alone
    kept = driver.runner.pool.storage[cold.pages[:2]].clone()
    driver.finish([driver.warm(1, prompt(32), cold)], 1)
    assert torch.equal(driver.runner.pool.storage[cold.pages[:2]], kept)
    assert not torch.equal(kept, shared)


def test_preempted_request_resumes_with_the_same_text(driver) -> None:
    hot = Sampling(temperature=0.8, seed=5)
    whole = driver.sequence(0, prompt(20), sampling=hot)
    driver.finish([whole], 30)
    first = driver.sequence(1, prompt(20), sampling=hot)
    driver.finish([first], 13)
    driver.release(first)
    again = driver.sequence(4, first.tokens, 9, hot)
    driver.finish([again], 17)
    assert again.tokens == whole.tokens


def test_opening_a_slot_forgets_everything(driver) -> None:
    old = driver.sequence(0, prompt(100, 1), sampling=Sampling(temperature=9.0, seed=3))
    driver.finish([old], 5)
    fresh = driver.sequence(1, prompt(30, 2))
    driver.finish([fresh], 10)
    # Reopened without being freed first: the plan's ``opened`` resets as well.
    reused = driver.sequence(0, prompt(30, 2))
    driver.finish([reused], 10)
    assert reused.output == fresh.output


def test_chain_takes_the_token_drawn_before(driver) -> None:
    expected = driver.sequence(0, prompt(20))
    driver.finish([expected], 2)
    runner = driver.runner
    page = driver.free.pop()
    more = driver.free.pop()
    first = runner.run(StepPlan(1, [Chunk(7, 5, 0, encode(prompt(20)), True, [page, more])], [Opened(5, 7, GREEDY, 0)]))
    second = runner.run(StepPlan(2, [Chunk(7, 5, 20, encode([0]), True, chain=True)]))
    assert first.tokens[0] + second.tokens[0] == expected.output


def test_chunks_that_do_not_emit_give_no_tokens(driver) -> None:
    sequences = [driver.sequence(0, prompt(10), 4), driver.sequence(1, prompt(3), 4)]
    assert driver.step(sequences).tokens[0] == []
    assert driver.runner.run(StepPlan(9, [])).tokens == []


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        (Chunk(9, 1, 0, encode([1, CASE.vocab]), True, [0]), "vocabulary"),
        (Chunk(9, 1, 0, encode([2**32 - 1]), True, [0]), "vocabulary"),
        (Chunk(9, 1, 0, b"", True, [0]), "no tokens"),
        (Chunk(9, 1, 512, encode([1]), True, [0]), "context"),
        (Chunk(9, 1, 16, encode([1]), True, [0]), "do not reach"),
        (Chunk(9, 1, 0, encode([1]), True, [300]), "page ids"),
        (Chunk(9, 1, 0, encode([1]), True, [-1]), "page ids"),
        (Chunk(9, 1, 0, encode([1]), True, list(range(33))), "pages"),
    ],
)
def test_a_chunk_that_cannot_be_computed_fails_alone(driver, bad, word) -> None:
    lonely = driver.sequence(0, prompt(12))
    driver.finish([lonely], 1)
    page = driver.free.pop()
    good = Chunk(8, 3, 0, encode(prompt(12)), True, [page])
    result = driver.runner.run(StepPlan(5, [bad, good], [Opened(1, 9, GREEDY, 0), Opened(3, 8, GREEDY, 0)]))
    assert list(result.failures) == [9] and word in result.failures[9]
    assert result.tokens == [[], lonely.output]


def test_wrong_sampling_fails_alone_and_is_forgotten(driver) -> None:
    bad = driver.sequence(0, prompt(5), sampling=Sampling(temperature=float("nan")))
    good = driver.sequence(1, prompt(5))
    result = driver.step([bad, good])
    assert list(result.failures) == [bad.request] and "temperature" in result.failures[bad.request]
    assert len(result.tokens[1]) == 1
    driver.release(bad)
    driver.finish([driver.sequence(0, prompt(5))], 2)


def test_values_that_are_not_finite_fail_alone_and_leave_no_trace(tmp_path, monkeypatch) -> None:
    """A poisoned embedding: whoever uses the token fails, neighbours do not, and its pages are clean for the next
    owner."""
    save(Case("untied", "llama", 6, 3, 32, 600), tmp_path)
    model = load_checkpoint(tmp_path).model
    look_up = decoder.embedding

    def poisoned(tokens, table):
        out = look_up(tokens, table)
        out[tokens == 17] = float("nan")
        return out

    monkeypatch.setattr(decoder, "embedding", poisoned)
    driver = Driver(Runner(model, 12, PAGE, 4))
    tokens = [token for token in prompt(40) if token != 17]
    alone = driver.sequence(0, tokens)
    driver.finish([alone], 6)
    assert 17 not in alone.output
    emitting, silent = driver.sequence(1, [3, 17]), driver.sequence(2, [3, 17, 4, 5], 2)
    company = driver.sequence(3, tokens)
    result = driver.step([emitting, silent, company])
    assert set(result.failures) == {emitting.request, silent.request}
    assert all("not finite" in message for message in result.failures.values())
    assert result.tokens[:2] == [[], []]
    driver.finish([company], 6)
    assert company.output == alone.output
    assert bool(driver.runner.pool.storage.isfinite().all())


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads its resident memory from /proc")
def test_pages_that_were_never_used_are_not_resident(folder) -> None:
    config = load_checkpoint(folder).config

    def resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before, device = resident_bytes(), torch.device("cpu")
    pool = KVPool(config, (256 << 20) // kv_bytes_per_page(config, PAGE, torch.float32), PAGE, torch.float32, device)
    assert pool.size_bytes > 255 << 20
    assert resident_bytes() - before < 32 << 20
    assert pool.storage.data_ptr() % 64 == 0
    assert not pool.storage[pool.scratch].any()


def test_sizes(folder) -> None:
    loaded = load_checkpoint(folder)
    runner = Runner(loaded.model, 7, PAGE, 2)
    assert runner.pool.size_bytes == 8 * Runner.kv_bytes_per_page(loaded.config, PAGE, torch.float32)
    assert kv_bytes_per_page(loaded.config, PAGE, torch.bfloat16) == 2 * 2 * 3 * PAGE * 32 * 2
    assert runner.pool.storage[3].is_contiguous()
    with pytest.raises(StartError, match="no room in memory"):
        KVPool(loaded.config, 1 << 40, PAGE, torch.float32, torch.device("cpu"))
    with pytest.raises(StartError):
        KVPool(loaded.config, 0, PAGE, torch.float32, torch.device("cpu"))
