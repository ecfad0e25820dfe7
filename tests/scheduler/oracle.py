"""A runner without a model whose pages say what was written into them, and the answer that each request must get.

Every cell (page, offset) records position, token and a hash of all tokens up to it, as keys and values depend on
them. The next token is a function of the cells read through the block table, so one wrong page changes the text; and
what a chunk reads and writes is compared with the request's true tokens at once, so that the first wrong cell is named.
"""

from hashlib import blake2b

import msgspec

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


class Cell(msgspec.Struct, frozen=True):
    """What stands for the keys and values of one position."""

    position: int
    token: int
    state: int


class OracleRunner:
    """Carries out plans on recorded cells; raises ``AssertionError`` for whatever a real runner would get wrong
    silently.

    ``tree_pages``: gives the pages that the cache shares at the moment; they must never be written.
    ``fail``: request ids to report as failed in the next step; ``explode``: raise in the next step, half done.
    """

    def __init__(self, page_size: int, max_running: int, vocab: int, tree_pages=set) -> None:
        self.page_size = page_size
        self.vocab = vocab
        self.cells: dict[tuple[int, int], Cell] = {}
        self.tables: dict[int, list[int]] = {}
        self.owners: dict[int, int] = {}
        self.max_running = max_running
        self.texts: dict[int, list[int]] = {}
        self.tree_pages = tree_pages
        self.fail: set[int] = set()
        self.explode = False
        self.computed = 0

    def accept(self, new: NewRequest) -> None:
        """Learn a request's prompt, to compare with what is read."""
        self.texts[new.request] = unpack(new.prompt)

    def run(self, plan: StepPlan) -> StepResult:
        plan = msgspec.msgpack.decode(
            msgspec.msgpack.encode(plan), type=StepPlan
        )  # nothing is shared with the scheduler
        for slot in plan.freed:
            self.tables.pop(slot, None)
            self.owners.pop(slot, None)
        for opened in plan.opened:
            assert 0 <= opened.slot < self.max_running
            assert opened.slot not in self.tables, f"slot {opened.slot} is opened twice"
            self.tables[opened.slot] = []
            self.owners[opened.slot] = opened.request
        slots = [chunk.slot for chunk in plan.chunks]
        assert len(slots) == len(set(slots)), "a slot has two chunks"
        for chunk in plan.chunks:
            assert self.owners[chunk.slot] == chunk.request, "a chunk is for another request's slot"
            self.tables[chunk.slot] += chunk.new_pages
        shared = self.tree_pages()
        for chunk in plan.chunks:
            self._write_guard(chunk, shared)
        states = [self._compute(chunk) for chunk in plan.chunks]
        if self.explode:
            self.explode = False
            raise RuntimeError("the device is on fire")
        result = []
        for chunk, state in zip(plan.chunks, states, strict=True):
            token = next_token(state, self.vocab)
            result.append([token] if chunk.emits else [])
            if chunk.emits and chunk.request not in self.fail:
                self.texts[chunk.request].append(token)
        failures = {chunk.request: "it failed alone" for chunk in plan.chunks if chunk.request in self.fail}
        self.fail -= set(failures)
        return StepResult(plan.step, result, failures)

    def _write_guard(self, chunk: Chunk, shared: set[int]) -> None:
        """Nobody else has, or is going to have, a page that this chunk writes."""
        table = self.tables[chunk.slot]
        first, last = chunk.start + chunk.held, chunk.start + chunk.count - 1
        for block in range(first // self.page_size, last // self.page_size + 1 if last >= first else 0):
            page = table[block]
            assert page not in shared, f"request {chunk.request} writes page {page}, which the tree shares"
            for slot, other in self.tables.items():
                assert other.count(page) == (slot == chunk.slot), f"page {page} is in the table of slot {slot}"

    def _compute(self, chunk: Chunk) -> int:
        """Read the context, write the chunk; returns the hash of everything up to its last token."""
        text, table = self.texts[chunk.request], self.tables[chunk.slot]
        tokens = unpack(chunk.tokens)
        assert tokens, "a chunk without tokens"
        assert tokens == text[chunk.start : chunk.start + len(tokens)], f"request {chunk.request}: other tokens"
        assert chunk.emits == (chunk.start + len(tokens) == len(text)), f"request {chunk.request}: emits {chunk.emits}"
        assert len(table) * self.page_size >= chunk.start + len(tokens), f"request {chunk.request}: table too short"
        state = 0
        for position in range(chunk.start):
            cell = self._cell(table, position)
            assert cell.position == position, f"request {chunk.request}: position {cell.position} at {position}"
            assert cell.token == text[position], f"request {chunk.request}: token {cell.token} at {position}"
            state = chain(state, cell.token)
            assert cell.state == state, f"request {chunk.request}: other context at position {position}"
        for index, token in enumerate(tokens):
            position = chunk.start + index
            state = chain(state, token)
            new = Cell(position, token, state)
            if index < chunk.held:
                assert self._cell(table, position) == new, f"request {chunk.request}: held position {position} differs"
            else:
                self.cells[table[position // self.page_size], position % self.page_size] = new
        self.computed += len(tokens)
        return state

    def _cell(self, table: list[int], position: int) -> Cell:
        return self.cells[table[position // self.page_size], position % self.page_size]
