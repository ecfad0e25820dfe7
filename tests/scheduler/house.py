"""Scheduler, step loop and oracle runner put together, with every invariant checked after every action."""

from radix.accounts import Quota
from radix.hashing import BlockHash, xxh3
from scheduler.arms import ARMS
from scheduler.loop import StepLoop, StepOutcome
from scheduler.plan import Progress
from scheduler.request import NewRequest, RequestRejected
from scheduler.scheduler import Scheduler
from scheduler.settings import Settings
from tests.scheduler.oracle import OracleRunner, answer, unpack


class House:
    """Drives requests to their ends and compares each with the answer it gets alone."""

    def __init__(
        self, settings: Settings, vocab: int = 3, block_hash: BlockHash = xxh3, depth: int = 1, pin_pages: int = 0
    ) -> None:
        self.settings = settings
        self.vocab = vocab
        self.cache = ARMS[settings.arm].cache(
            settings.pages, settings.page_size, block_hash=block_hash, pin_pages=pin_pages
        )
        self.scheduler = Scheduler(settings, self.cache)
        self.runner = OracleRunner(settings.page_size, settings.max_running, vocab, self._tree_pages)
        self.now = 0.0
        self.loop = StepLoop(self.scheduler, self.runner, self._tick, depth)
        self.open: dict[int, NewRequest] = {}
        self.output: dict[int, list[int]] = {}
        self.prompts: dict[int, list[int]] = {}
        self.finished: dict[int, str] = {}
        self.excused: set[int] = set()
        self._next = 0

    def new(
        self, prompt: bytes, max_tokens: int, stop: frozenset[int] = frozenset(), tenant: str = "", **more: float
    ) -> NewRequest:
        """A request with the next id, not handed in."""
        self._next += 1
        return NewRequest(self._next, prompt, max_tokens, stop_tokens=stop, tenant=tenant, **more)

    def submit(self, new: NewRequest) -> str:
        """Hand in; the code of the rejection, or ""."""
        try:
            self.scheduler.submit(new, self._tick())
        except RequestRejected as error:
            return error.code
        new = self.scheduler.requests[new.request].new  # an open-ended one is cut to what fits
        self.runner.accept(new)
        self.open[new.request] = new
        self.output[new.request] = []
        self.prompts[new.request] = unpack(new.prompt)
        return ""

    def set_tenant(self, tenant: str, weight: float = 1.0, quota: Quota | None = None) -> None:
        """Another weight and quota; open-ended requests are cut to it, others that need more end."""
        self.take(self.scheduler.set_tenant(tenant, weight, quota, self._tick()))
        self._learn_bounds()

    def publish(self, name: str, prompt: bytes, pin: str) -> None:
        """A system prompt becomes public; a hard pin may cut open-ended requests."""
        self.scheduler.publish_prompt(name, prompt, self.now, pin)
        self._learn_bounds()

    def cancel(self, request: int) -> bool:
        """End a request now; nothing may be reported of it any more."""
        known = request in self.open
        assert self.scheduler.cancel(request, self._tick()) == known
        self.open.pop(request, None)
        self.scheduler.check()
        return known

    def step(self) -> StepOutcome | None:
        """Plan, run, commit, check."""
        had_work = self.scheduler.has_work or self.loop.in_flight
        self._learn_warmings()
        outcome = self.loop.step()
        assert (outcome is not None) == bool(had_work), "work and no step, or a step and no work"
        if outcome is not None:
            self.take(outcome.progress)
        self.scheduler.check()
        return outcome

    def launch(self) -> bool:
        """Plan one step ahead."""
        self._learn_warmings()
        launched = self.loop.launch()
        self.scheduler.check()
        return launched

    def collect(self) -> StepOutcome | None:
        """Run and commit the oldest step in flight."""
        outcome = self.loop.collect()
        if outcome is not None:
            self.take(outcome.progress)
        self.scheduler.check()
        return outcome

    def take(self, progress: list[Progress]) -> None:
        """Record what a step gave, and compare the ends with the definition."""
        for entry in progress:
            new = self.open[entry.request]  # a KeyError here: something was reported of a request that had ended
            output = self.output[entry.request]
            output += entry.tokens
            expected, reason = answer(new, self.vocab)
            assert output == expected[: len(output)], f"request {entry.request} got other tokens than alone"
            if entry.finish == "error":
                assert entry.request in self.excused, entry.message
            elif entry.finish in ("deadline", "quota"):
                pass
            elif entry.finish:
                assert (output, entry.finish) == (expected, reason), f"{entry}, {output} against {expected}, {reason}"
            if entry.finish:
                self.finished[entry.request] = entry.finish
                del self.open[entry.request]

    def drain(self) -> int:
        """Run until nothing is left; returns the number of steps. More steps than all tokens is a livelock."""
        tokens = sum(r.prompt_tokens + r.new.max_tokens for r in self.scheduler.requests.values())
        bound = 4 * tokens + 10
        steps = 0
        while self.scheduler.has_work or self.loop.in_flight:
            assert self.step() is not None, "work is left, and no step was planned"
            steps += 1
            assert steps <= bound, f"{steps} steps for {tokens} tokens"
        self.check_empty()
        return steps

    def text(self, request: int) -> list[int]:
        """Prompt and reported output of a request."""
        return self.prompts[request] + self.output[request]

    def check_empty(self) -> None:
        """Nothing is open and nothing is held: all pages are free or evictable, or pinned hard."""
        assert not self.open
        assert not self.scheduler.has_work
        stats = self.cache.stats()
        assert stats.private == 0 and stats.leases == 0 and stats.pending == 0 and stats.producers == 0
        assert stats.cached - stats.evictable <= stats.pinned_hard
        assert stats.free + stats.cached == self.settings.pages
        assert not self.cache.frontiers.watched
        self.scheduler.check()

    def _tick(self) -> float:
        self.now += 0.001
        return self.now

    def _learn_bounds(self) -> None:
        self.open = {request: self.scheduler.requests[request].new for request in self.open}
        self.scheduler.check()

    def _learn_warmings(self) -> None:
        """Requests that the scheduler made itself, to compute a published prompt."""
        for request in self.scheduler.requests.values():
            if request.new.request < 0 and request.new.request not in self.runner.texts:
                self.runner.accept(request.new)

    def _tree_pages(self) -> dict[int, int | None]:
        nodes = list(self.cache.tree.index.values())
        tails = [t for node in [*nodes, *self.cache.tree.roots.values()] for t in (node.tails or {}).values()]
        pages: dict[int, int | None] = {page: None for node in [*nodes, *tails] for page in node.pages}
        for request in self.scheduler.running:
            for start, end in request.held.pending:
                pages |= dict.fromkeys(request.held.pages[start:end], request.new.request)
        return pages
