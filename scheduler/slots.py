"""Rows of the runner's block table: which are free, and which were given back since the last plan."""


class Slots:
    """Rows 0..count-1. A row given back may be taken again in the same plan: the runner closes before it opens."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count - 1, -1, -1))
        self._freed: list[int] = []

    @property
    def free(self) -> int:
        """Number of free rows."""
        return len(self._free)

    def take(self) -> int:
        """A free row; there is one."""
        return self._free.pop()

    def give(self, slot: int) -> None:
        """Take a row back."""
        self._free.append(slot)
        self._freed.append(slot)

    def drain_freed(self) -> list[int]:
        """Rows given back since the last call, for ``StepPlan.freed``."""
        freed, self._freed = self._freed, []
        return freed

    def free_slots(self) -> list[int]:
        """The free rows, for ``check``."""
        return list(self._free)
