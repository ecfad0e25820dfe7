"""Progress while a model is loaded and prompts are computed: bars on a terminal, lines in a log.

Knows rich and the engine's ``Loading`` events, nothing of engines.
"""

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from backend.engine.messages import Loading

_LINE_SECONDS = 10.0


class LoadingBar:
    """One bar for each thing that is shown. Elsewhere than on a terminal a line when it begins, one every ten seconds,
    and one when it is done."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._bars: Progress | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[amount]}"))
            self._bars = Progress(*columns, TimeElapsedColumn(), console=console)
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, tuple[float, bool]] = {}  # when the last line was, and whether it was the end

    def __enter__(self) -> "LoadingBar":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, loading: Loading) -> None:
        """``loading.what`` is at ``done`` of ``total`` bytes."""
        amount = f"{loading.done / 1e6:,.1f}/{loading.total / 1e6:,.1f} MB"
        self._show(loading.what, loading.done, loading.total, amount)

    def count(self, what: str, done: int, total: int) -> None:
        """``what`` is at ``done`` of ``total`` pieces."""
        self._show(what, done, total, f"{done}/{total}")

    def _show(self, what: str, done: int, total: int, amount: str) -> None:
        if self._bars is None:
            self._say(what, done >= total, amount)
            return
        if what not in self._tasks:
            self._tasks[what] = self._bars.add_task(what, total=total, amount=amount)
        self._bars.update(self._tasks[what], completed=done, total=total, amount=amount)

    def _say(self, what: str, is_done: bool, amount: str) -> None:
        now = self._clock()
        at, was_done = self._said.get(what, (-_LINE_SECONDS, False))
        if (is_done and not was_done) or (not is_done and now - at >= _LINE_SECONDS):
            self._said[what] = (now, is_done)
            self._console.print(f"banyan: {what}: {amount}", markup=False, highlight=False, soft_wrap=True)
