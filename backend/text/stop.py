"""Stop strings over a stream of text. Knows strings only.

An answer ends before the stop string that is *complete first*, so the cut does not depend on how the text was
sliced into deltas. Only a possible beginning of a stop string is held back.
"""

from collections.abc import Sequence


class StopStrings:
    """One answer's watch for its stop strings (empty strings are not allowed)."""

    __slots__ = ("_held", "_stops", "matched")

    def __init__(self, stops: Sequence[str]) -> None:
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._stops = tuple(stops)
        self._held = ""
        self.matched: str | None = None

    def push(self, text: str) -> str:
        """What may be shown now. Sets ``matched`` when a stop string is complete; nothing follows then."""
        if self.matched is not None:
            return ""
        if not self._stops:
            return text
        seen = self._held + text
        ends = [(at + len(stop), at, stop) for stop in self._stops if (at := seen.find(stop)) >= 0]
        if ends:
            _, at, self.matched = min(ends)
            self._held = ""
            return seen[:at]
        keep = self._open_prefix(seen)
        self._held = seen[len(seen) - keep :]
        return seen[: len(seen) - keep]

    def flush(self) -> str:
        """The answer is over: what was held back is text after all."""
        held, self._held = self._held, ""
        return held

    def _open_prefix(self, seen: str) -> int:
        """Length of the longest end of ``seen`` with which a stop string begins. O(sum of the stop strings squared)."""
        for size in range(min(len(seen), max(map(len, self._stops)) - 1), 0, -1):
            if any(stop.startswith(seen[-size:]) for stop in self._stops):
                return size
        return 0
