"""Pins: prompts whose pages stay. Soft ones are evicted last, hard ones never. Knows digests and nodes, no order.

A pin is *warm* while all its blocks are in the tree. It becomes cold when its pages are evicted (soft), or is cold
from the start; whoever computes the prompt next makes it warm again. The budget bounds the pages of all pins together,
blocks that several pins have in common counted once.
"""

from collections import Counter

import msgspec

from radix.errors import PinError
from radix.hashing import Key
from radix.tree import Node


class PinState(msgspec.Struct, frozen=True, gc=False):
    """A pin for people: ``pages`` it asks for, and whether they are all there."""

    name: str
    hard: bool
    pages: int
    warm: bool


class Pin:
    """``node`` ends where the pinned blocks end; None while cold."""

    __slots__ = ("hard", "key", "name", "node")

    def __init__(self, name: str, key: Key, hard: bool) -> None:
        self.name = name
        self.key = key
        self.hard = hard
        self.node: Node | None = None


class Pins:
    """All pins by name. ``budget``: most pages."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.pins: dict[str, Pin] = {}
        self.cold: dict[str, Pin] = {}
        self._at: dict[int, list[Pin]] = {}  # serial of the node -> warm pins that end there
        self._blocks: Counter[tuple[int, int]] = Counter()  # (block, digest) -> pins that ask for it
        self._hard: Counter[tuple[int, int]] = Counter()

    @property
    def pages(self) -> int:
        """Pages that all pins ask for."""
        return len(self._blocks)

    @property
    def hard_pages(self) -> int:
        """Pages that hard pins ask for."""
        return len(self._hard)

    def add(self, name: str, key: Key, hard: bool) -> Pin:
        """A new pin, cold. Raises ``PinError`` for a known name, no whole block, or too many pages."""
        if name in self.pins:
            raise PinError(f"there is a pin called {name!r} already")
        if not key.digests:
            raise PinError(f"pin {name!r} has {len(key)} tokens, less than a page")
        extra = sum(1 for block in enumerate(key.digests) if block not in self._blocks)
        if self.pages + extra > self.budget:
            raise PinError(
                f"pin {name!r} needs {extra} more pages; {self.pages} of the budget of {self.budget} are in use"
            )
        pin = self.pins[name] = self.cold[name] = Pin(name, key, hard)
        self._blocks.update(enumerate(key.digests))
        if hard:
            self._hard.update(enumerate(key.digests))
        return pin

    def remove(self, name: str) -> Pin:
        """Forget a pin; its node still has the pin's lock or mark. Raises ``PinError`` for an unknown name."""
        pin = self.pins.pop(name, None)
        if pin is None:
            raise PinError(f"there is no pin called {name!r}")
        self.cold.pop(name, None)
        if pin.node is not None:
            self._leave(pin, pin.node)
        _subtract(self._blocks, pin.key)
        if pin.hard:
            _subtract(self._hard, pin.key)
        return pin

    def warm(self, pin: Pin, node: Node) -> None:
        """The pin's blocks are all there and end at ``node``."""
        pin.node = node
        self._at.setdefault(node.serial, []).append(pin)
        del self.cold[pin.name]

    def lost(self, node: Node) -> None:
        """The end of ``node`` goes: pins that end there are cold."""
        for pin in self._at.pop(node.serial, ()):
            pin.node = None
            self.cold[pin.name] = pin

    def states(self) -> list[PinState]:
        """All pins, for people."""
        return [PinState(p.name, p.hard, len(p.key.digests), p.node is not None) for p in self.pins.values()]

    def _leave(self, pin: Pin, node: Node) -> None:
        here = self._at[node.serial]
        here.remove(pin)
        if not here:
            del self._at[node.serial]


def _subtract(counts: Counter[tuple[int, int]], key: Key) -> None:
    for block in enumerate(key.digests):
        counts[block] -= 1
        if not counts[block]:
            del counts[block]
