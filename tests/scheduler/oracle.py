"""A runner without a model whose pages say what was written into them, and the answer that each request must get.

Every cell (page, offset) records position, token and a hash of all tokens up to it, as keys and values depend on
them. The next token is a function of the cells read through the block table, so one wrong page changes the text; and
what a chunk reads and writes is compared with the request's true tokens at once, so that the first wrong cell is named.
"""

from collections import deque
from hashlib import blake2b

import msgspec

from scheduler.loop import Done
from scheduler.plan import Chunk, StepPlan, StepResult
from scheduler.request import NewRequest


def pack(tokens: list[int]) -> bytes:
    """Little-endian uint32."""
    return b"".join(token.to_bytes(4, "little") for token in tokens)


def unpack(tokens: bytes) -> list[int]:
    """Ids of little-endian uint32 bytes."""
    return [int.from_bytes(tokens[at : at + 4], "little") for at in range(0, len(tokens), 4)]


def chain(state: int, token: int) -> int:
    """Hash of a sequence from the hash of all but its last token."""
    return int.from_bytes(blake2b(state.to_bytes(8, "little") + pack([token]), digest_size=8).digest(), "little")


def next_token(state: int, vocab: int) -> int:
    """What the model without weights says after a sequence with hash ``state``."""
    return (state >> 7) % vocab


def answer(new: NewRequest, vocab: int) -> tuple[list[int], str]:
    """Output tokens and finish reason of a request that runs alone, by the definition."""
    state = 0
    for token in unpack(new.prompt):
        state = chain(state, token)
    output: list[int] = []
    while True:
        output.append(next_token(state, vocab))
        if output[-1] in new.stop_tokens:
            return output, "stop"
        if len(output) == new.max_tokens:
            return output, "length"
        state = chain(state, output[-1])


class OnFire(Exception):
    """What ``explode`` raises."""


class Cell(msgspec.Struct, frozen=True):
    """What stands for the keys and values of one position."""

    position: int
    token: int
    state: int


class OracleRunner:
    """Carries out plans on recorded cells; raises ``AssertionError`` for whatever a real runner would get wrong
    silently.

    ``shared``: gives the pages that are in the cache's tree at the moment a plan is launched: page -> id of the request
    that steps in flight write it for, None: nobody may write it. ``fail``: request ids to report as failed in the next
    step; what that step wrote for them is gone. ``explode``: raise in the next step, half done.
    """

    def __init__(self, page_size: int, max_running: int, vocab: int, shared=dict) -> None:
        self.page_size = page_size
        self.vocab = vocab
        self.cells: dict[tuple[int, int], Cell] = {}
        self.doubtful: set[tuple[int, int]] = set()  # written by steps that failed, or out of such cells
        self.tables: dict[int, list[int]] = {}
        self.owners: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.max_running = max_running
        self.texts: dict[int, list[int]] = {}
        self.shared = shared
        self.launched: deque[tuple[StepPlan, dict[int, int | None]]] = deque()
        self.fail: set[int] = set()
        self.explode = False
        self.computed = 0

    def accept(self, new: NewRequest) -> None:
        """Learn a request's prompt, to compare with what is read."""
        self.texts[new.request] = unpack(new.prompt)

    def launch(self, plan: StepPlan) -> None:
        """Remember a plan, and what the tree shares now."""
        decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=StepPlan)  # nothing is shared
        self.launched.append((decoded, self.shared()))

    def collect(self) -> Done:
        """Run the oldest plan. Assertions of the oracle are not errors of a step: they are raised."""
        try:
            return Done(self._run(*self.launched.popleft()), None, 0.0)
        except OnFire as error:
            return Done(None, error, 0.0)

    def run(self, plan: StepPlan) -> StepResult:
        """Launch and collect."""
        self.launch(plan)
        done = self.collect()
        assert done.result is not None
        return done.result

    def _run(self, plan: StepPlan, shared: dict[int, int | None]) -> StepResult:
        for slot in plan.freed:
            self.tables.pop(slot, None)
            self.owners.pop(slot, None)
        for opened in plan.opened:
            assert 0 <= opened.slot < self.max_running
            assert opened.slot not in self.tables, f"slot {opened.slot} is opened twice"
            self.tables[opened.slot] = []
            self.last.pop(opened.slot, None)
            self.owners[opened.slot] = opened.request
        slots = [chunk.slot for chunk in plan.chunks]
        assert len(slots) == len(set(slots)), "a slot has two chunks"
        for chunk in plan.chunks:
            assert self.owners[chunk.slot] == chunk.request, "a chunk is for another request's slot"
            self.tables[chunk.slot] += chunk.new_pages
        written: dict[tuple[int, int], int] = {}
        for chunk in plan.chunks:
            self._write_guard(chunk, shared, written)
        states = [self._compute(chunk) for chunk in plan.chunks]
        if self.explode:
            self.explode = False
            self.doubtful |= set(written)
            self.last.clear()
            raise OnFire("the device is on fire")
        result = []
        for chunk, state in zip(plan.chunks, states, strict=True):
            failing = chunk.request in self.fail
            token = next_token(state, self.vocab) if state is not None else (next_token(0, self.vocab) + 1) % self.vocab
            result.append([token] if chunk.emits else [])
            if failing:
                self.doubtful |= {cell for cell, request in written.items() if request == chunk.request}
            self.last.pop(chunk.slot, None)
            if chunk.emits and not failing and state is not None:
                self.last[chunk.slot] = token
                self._learn(chunk, token)
        failures = {chunk.request: "it failed alone" for chunk in plan.chunks if chunk.request in self.fail}
        self.fail -= set(failures)
        return StepResult(plan.step, result, failures)

    def _learn(self, chunk: Chunk, token: int) -> None:
        text = self.texts[chunk.request]
        end = chunk.start + chunk.count
        if end == len(text):
            text.append(token)
        else:
            assert text[end] == token, f"request {chunk.request}: position {end} was sampled differently before"

    def _write_guard(self, chunk: Chunk, shared: dict[int, int | None], written: dict[tuple[int, int], int]) -> None:
        """What this chunk writes nobody else writes in this step; nobody else has the page, unless it is in the tree
        and written for this very request."""
        table = self.tables[chunk.slot]
        for position in range(chunk.start + chunk.held, chunk.start + chunk.count):
            page = table[position // self.page_size]
            cell = (page, position % self.page_size)
            assert cell not in written, f"requests {written.get(cell)} and {chunk.request} both write {cell}"
            written[cell] = chunk.request
            if page in shared:
                assert shared[page] == chunk.request, f"request {chunk.request} writes page {page}, which is shared"
                continue
            for slot, other in self.tables.items():
                assert other.count(page) == (slot == chunk.slot), f"page {page} is in the table of slot {slot}"

    def _compute(self, chunk: Chunk) -> int | None:
        """Read the context, write the chunk; returns the hash of everything up to its last token, None when the chunk
        reads what a failed step was to write: then its result must not be used."""
        text, table = self.texts[chunk.request], self.tables[chunk.slot]
        tokens = unpack(chunk.tokens)
        assert tokens, "a chunk without tokens"
        assert not chunk.chain or tokens == [0], "a chain of more than one token"
        known = not chunk.chain or chunk.slot in self.last
        if chunk.chain:
            tokens = [self.last.get(chunk.slot, 0)]
        end = chunk.start + len(tokens)
        assert len(table) * self.page_size >= end, f"request {chunk.request}: table too short"
        context = [(table[at // self.page_size], at % self.page_size) for at in range(chunk.start)]
        new = [(table[at // self.page_size], at % self.page_size) for at in range(chunk.start, end)]
        self.computed += len(tokens)
        if (
            not known
            or self.doubtful.intersection(context)
            or (chunk.held and self.doubtful.intersection(new[: chunk.held]))
        ):
            self.doubtful |= set(new[chunk.held :])
            return None
        assert tokens == text[chunk.start : end], f"request {chunk.request}: other tokens"
        state = 0
        for position, place in enumerate(context):
            cell = self.cells[place]
            assert cell.position == position, f"request {chunk.request}: position {cell.position} at {position}"
            assert cell.token == text[position], f"request {chunk.request}: token {cell.token} at {position}"
            state = chain(state, cell.token)
            assert cell.state == state, f"request {chunk.request}: other context at position {position}"
        for index, token in enumerate(tokens):
            state = chain(state, token)
            cell = Cell(chunk.start + index, token, state)
            if index < chunk.held:
                assert self.cells[new[index]] == cell, f"request {chunk.request}: held position {index} differs"
            else:
                self.cells[new[index]] = cell
                self.doubtful.discard(new[index])
        return state
