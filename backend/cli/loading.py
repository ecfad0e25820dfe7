"""The progress bar while a model is loaded. Knows rich and the engine's ``Loading`` events, nothing of engines."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from backend.engine.messages import Loading


class LoadingBar:
    """One bar per thing that is loaded (``Loading.what``); elsewhere than on a terminal only their last state."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn(), console=console
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "LoadingBar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, loading: Loading) -> None:
        """Move the bar of ``loading.what`` to ``done`` of ``total`` bytes."""
        if loading.what not in self._tasks:
            self._tasks[loading.what] = self._progress.add_task(loading.what, total=loading.total)
        self._progress.update(self._tasks[loading.what], completed=loading.done, total=loading.total)
