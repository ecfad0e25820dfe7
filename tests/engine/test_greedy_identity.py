"""The whole engine on a small random model: greedy text is what plain transformers generates, however it was scheduled.

Alone and in a batch of 16, with the cache cold, warm and useless, chunked and whole, after preemption: the same tokens.
"""

import time
from array import array
from itertools import count
from pathlib import Path

import pytest
import torch

from backend.engine.loop import EngineLoop
from backend.engine.messages import Inspect, Load, PromptPublished, PublishPrompt, Report, Submit
from backend.engine.overlap import Overlapped, Queued
from backend.engine.runner import Runner
from backend.weights.load import load_checkpoint
from kernels.cpu import library
from scheduler import isolation
from scheduler.arms import ARMS
from scheduler.loop import Inline, StepLoop
from scheduler.plan import Sampling, StepPlan, TokenLogprobs
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from tests.models.checkpoints import Case, save

CASE = Case("llama-g3-d64-tied", "llama", 9, 3, 64, 1009, {"tie_word_embeddings": True})
PAGE = 16
OUTPUTS = 40
SYSTEM = 70  # shared tokens: four whole pages and a part


class House:
    """A checkpoint, sixteen prompts that share a prefix, and what transformers says to each."""

    def __init__(self, folder: Path) -> None:
        reference = save(CASE, folder)
        self.model = load_checkpoint(folder).model
        generator = torch.Generator().manual_seed(3)

        def draw(count: int) -> list[int]:
            return torch.randint(0, CASE.vocab, (count,), generator=generator).tolist()

        system = draw(SYSTEM)
        self.prompts = [system + draw(1 + 5 * index) for index in range(16)]
        self.expected = [self._plain(reference, prompt) for prompt in self.prompts]

    @staticmethod
    def _plain(reference: torch.nn.Module, prompt: list[int]) -> list[int]:
        ids = torch.tensor([prompt])
        out = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=OUTPUTS, do_sample=False)
        return out[0, len(prompt) :].tolist()

    def engine(self, pages: int = 400, max_running: int = 16, max_step_tokens: int = 512, **more: object) -> "Engine":
        return Engine(self.model, pages, max_running, max_step_tokens, **more)


class Engine:
    """``depth`` 2: with a thread that runs the steps, and the next one planned meanwhile; ``queued``: begun, too."""

    def __init__(
        self,
        model: torch.nn.Module,
        pages: int,
        max_running: int,
        max_step_tokens: int,
        arm: str = "shared",
        depth: int = 2,
        queued: bool = False,
        inter_token_s: float = 0.0,
        isolation_s: float = 0.0,
    ) -> None:
        settings = Settings(
            PAGE,
            pages,
            max_running,
            max_step_tokens,
            max_context=512,
            arm=arm,
            inter_token_s=inter_token_s,
            isolation_s=isolation_s,
        )
        scheduler = Scheduler(settings, ARMS[arm].cache(pages, PAGE, secret=b"test"))
        runner = Runner(model, pages, PAGE, max_running)
        made = Inline if depth == 1 else Queued if queued else Overlapped
        executor = made(runner, time.monotonic)
        self.loop = EngineLoop(scheduler, StepLoop(scheduler, executor, time.monotonic, depth), time.monotonic)
        self.ids = iter(range(1, 1 << 20))
        self.logprobs: list[list[TokenLogprobs]] = []  # of the last run
        self.prompt_logprobs: list[list[TokenLogprobs]] = []  # likewise

    def run(
        self,
        prompts: list[list[int]],
        namespaces: list[str] | None = None,
        sampling: list[Sampling] | None = None,
        late: int = 0,
    ) -> list[list[int]]:
        """All prompts at once, greedy unless told otherwise; the tokens of each. ``late``: so many come one by one, a
        few steps after the others, from another tenant."""
        texts: dict[int, list[int]] = {}
        logprobs: dict[int, list[TokenLogprobs]] = {}
        scores: dict[int, list[TokenLogprobs]] = {}

        def submit(index: int, tenant: str = "") -> None:
            request = next(self.ids)
            texts[request], logprobs[request], scores[request] = [], [], []
            refused = self.loop.handle(
                Submit(
                    request=request,
                    prompt=array("I", prompts[index]).tobytes(),
                    tenant=tenant,
                    max_tokens=OUTPUTS,
                    sampling=sampling[index] if sampling else Sampling(temperature=0.0),
                    namespace=namespaces[index] if namespaces else "",
                )
            )
            assert refused is None

        for index in range(len(prompts) - late):
            submit(index)
        for steps in count():
            if late and steps % 4 == 3:
                submit(len(prompts) - late, "late")
                late -= 1
            if not self.loop.has_work:
                break
            step = self.loop.step()
            assert step is not None
            for output in step.outputs:
                assert output.finish in ("", "length"), output.message
                texts[output.request] += output.tokens
                logprobs[output.request] += output.logprobs
                scores[output.request] += output.prompt_logprobs
        self.logprobs = list(logprobs.values())
        self.prompt_logprobs = list(scores.values())
        return list(texts.values())

    def load(self) -> Load:
        """Counters, after every invariant was verified and nothing is held any more."""
        report = self.loop.handle(Inspect(check=True))
        assert isinstance(report, Report)
        assert report.problem == ""
        assert report.load.pages_private == 0
        return report.load


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("checkpoint"))


def test_alone_then_warm(house: House) -> None:
    engine = house.engine(max_running=1)
    for prompt, expected in zip(house.prompts, house.expected, strict=True):
        assert engine.run([prompt]) == [expected]
        assert engine.run([prompt]) == [expected]  # now its whole prompt is cached
    load = engine.load()
    # The first prompt is cold; the others find the pages of the system prompt, each second run all but a page at most.
    assert load.cached_tokens >= 15 * (SYSTEM // PAGE) * PAGE + sum(len(p) - PAGE for p in house.prompts)


def test_batch_of_sixteen_cold_then_warm(house: House) -> None:
    engine = house.engine()
    assert engine.run(house.prompts) == house.expected
    assert engine.run(house.prompts) == house.expected
    assert engine.load().preemptions == 0


def test_without_the_library_of_cpu_kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "library", lambda: None)
    house = House(tmp_path)
    engine = house.engine()
    assert engine.run(house.prompts) == house.expected
    assert engine.run(house.prompts) == house.expected
    engine.load()


def test_without_sharing(house: House) -> None:
    engine = house.engine()
    assert engine.run(house.prompts, [f"n{index}" for index in range(16)]) == house.expected
    assert engine.load().cached_tokens == 0


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunked(house: House, chunk: int) -> None:
    engine = house.engine(max_running=1, max_step_tokens=chunk)
    assert engine.run(house.prompts[::5]) == house.expected[::5]
    engine.load()


def test_chunks_beside_decodes(house: House) -> None:
    engine = house.engine(max_running=16, max_step_tokens=19)
    assert engine.run(house.prompts) == house.expected
    engine.load()


def test_preempted_requests_resume(house: House) -> None:
    pages = -(-(len(house.prompts[-1]) + OUTPUTS) // PAGE) + 6  # the longest fits, sixteen do not
    engine = house.engine(pages=pages)
    assert engine.run(house.prompts) == house.expected
    load = engine.load()
    assert load.preemptions > 0
    assert load.evicted_pages > 0


@pytest.mark.parametrize(("depth", "queued"), [(1, False), (2, False), (2, True)])
@pytest.mark.parametrize("arm", sorted(ARMS))
def test_in_every_arm(house: House, arm: str, depth: int, queued: bool) -> None:
    engine = house.engine(arm=arm, depth=depth, queued=queued, pages=60, max_running=6, max_step_tokens=40)
    assert engine.run(house.prompts) == house.expected
    assert (engine.load().cached_tokens > 0) == (arm == "shared")


def test_with_an_aim_for_the_time_between_tokens(house: House) -> None:
    """Chunks are as long as the measured times of steps say, other ones in every run."""
    engine = house.engine(inter_token_s=0.004, max_running=5)
    assert engine.run(house.prompts) == house.expected
    assert engine.run(house.prompts) == house.expected
    engine.load()


@pytest.mark.parametrize(("depth", "queued"), [(1, False), (2, False), (2, True)])
def test_decodes_that_steps_leave_out(house: House, monkeypatch: pytest.MonkeyPatch, depth: int, queued: bool) -> None:
    """A loud tenant's streams stand still for a step when somebody else's request starts, and go on as before."""
    monkeypatch.setattr(isolation, "_EVERY_S", 0.0)
    engine = house.engine(depth=depth, queued=queued, max_running=16, inter_token_s=10.0, isolation_s=1.0)
    scheduler = engine.loop.scheduler
    plan, plans = scheduler.plan, []

    def planned(now: float) -> StepPlan | None:
        plans.append(plan(now))
        return plans[-1]

    monkeypatch.setattr(scheduler, "plan", planned)
    assert engine.run(house.prompts, late=4) == house.expected
    rows = [[chunk.request for chunk in made.chunks] for made in plans if made is not None]
    assert any(min(chunks) > 12 for chunks in rows[:-OUTPUTS]), "no step left the first twelve out"
    engine.load()


def test_a_published_prompt_is_everybodys(house: House) -> None:
    engine = house.engine()
    system = array("I", house.prompts[0][:SYSTEM]).tobytes()
    answer = engine.loop.handle(PublishPrompt("system", system))
    assert answer == PromptPublished("system")
    assert engine.run(house.prompts[:2]) == house.expected[:2]
    assert engine.load().cached_tokens >= 2 * (SYSTEM // PAGE) * PAGE, "also the first finds it"


def test_next_turn_continues_from_the_cache(house: House) -> None:
    """Prompt, answer and a new message: only what is behind the last computed token is computed."""
    engine = house.engine()
    prompt, answer = house.prompts[3], house.expected[3]
    engine.run([prompt])
    before = engine.load()
    following = [*prompt, *answer, 5, 6, 7]
    again = house.engine().run([following])
    assert engine.run([following]) == again
    after = engine.load()
    # The last token of the answer was sampled but never fed; it and the three new ones are computed.
    assert after.cached_tokens - before.cached_tokens == len(prompt) + OUTPUTS - 1
