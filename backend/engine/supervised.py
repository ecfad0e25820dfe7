"""An engine that comes back: an ``EngineClient`` around one child process after another.

Knows when a process is gone or stands still, and what a new one has to be told: tenants and public prompts. Open
requests of the old one end with an error; nothing of the cache survives.

    alive --gone, silent, stuck--> starting (attempts, each later than the one before) --> alive | given up
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from backend.engine.client import Generation
from backend.engine.messages import EngineInfo, Lane, Load, Report, Snapshot, Submit
from backend.engine.process_client import ProcessClient
from backend.errors import EngineError, StartError

PING_SECONDS = 1.0
SILENT_SECONDS = 8.0
STUCK_SECONDS = 300.0
DELAYS_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_SECONDS = 60.0  # who lives so long has started well: attempts are counted anew


class SupervisedEngine:
    """``start``: makes a new process. ``tell``: called with what happens, for people. ``restarted``: called when a new
    process takes requests, whose cache is empty.

    ``silent_s``: a process that does not answer for so long is killed; ``stuck_s``: also one whose step takes so long.
    """

    def __init__(
        self,
        client: ProcessClient,
        start: Callable[[], Awaitable[ProcessClient]],
        tell: Callable[[str], None] = lambda text: None,
        *,
        silent_s: float = SILENT_SECONDS,
        stuck_s: float = STUCK_SECONDS,
    ) -> None:
        self.given_up = asyncio.Event()
        self.restarts = 0
        self.restarted: list[Callable[[], None]] = []
        self._client = client
        self._start = start
        self._tell = tell
        self._silent_s = silent_s
        self._stuck_s = stuck_s
        self._next_id = 0
        self._tenants: dict[str, tuple[float, int, int]] = {}
        self._prompts: dict[str, tuple[bytes, str]] = {}
        self._watching = asyncio.create_task(self._watch())

    @property
    def info(self) -> EngineInfo:
        """Of the process that runs, or ran last."""
        return self._client.info

    @property
    def load(self) -> Load:
        """After the last step; counters begin anew with each process."""
        return self._client.load

    @property
    def step_ms(self) -> float:
        """Of the last step."""
        return self._client.step_ms

    @property
    def alive(self) -> bool:
        """False from the end of one process until the next one takes requests."""
        return self._client.alive

    def next_request_id(self) -> int:
        """Unique over all processes."""
        self._next_id += 1
        return self._next_id

    def generate(self, submit: Submit) -> Generation:
        """Raises ``EngineError`` while no process takes requests."""
        return self._client.generate(submit)

    async def inspect(self, check: bool = False) -> Report:
        """See ``EngineClient``."""
        return await self._client.inspect(check)

    async def look(self, tenant: str, everything: bool = False, limit: int = 200) -> Snapshot:
        """See ``EngineClient``."""
        return await self._client.look(tenant, everything, limit)

    async def lanes(self, tenant: str, everything: bool = False, limit: int = 256) -> list[Lane]:
        """See ``EngineClient``."""
        return await self._client.lanes(tenant, everything, limit)

    async def publish_prompt(self, name: str, prompt: bytes, pin: str = "soft") -> None:
        """Also told to every later process."""
        await self._client.publish_prompt(name, prompt, pin)
        self._prompts[name] = (prompt, pin)

    def withdraw_prompt(self, name: str, prompt: bytes) -> None:
        """Also for every later process."""
        self._prompts.pop(name, None)
        self._client.withdraw_prompt(name, prompt)

    def set_tenant(self, tenant: str, weight: float = 1.0, page_limit: int = 0, page_watermark: int = 0) -> None:
        """Also told to every later process."""
        self._client.set_tenant(tenant, weight, page_limit, page_watermark)
        self._tenants[tenant] = (weight, page_limit, page_watermark)

    async def close(self) -> None:
        """End the process for good."""
        self._watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watching
        await self._client.close()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            why = await self._end_of(self._client)
            failures = 0 if loop.time() - began > STEADY_SECONDS else failures
            self._tell(f"the engine {why}; starting it again")
            await self._client.close()
            while not self._client.alive:
                if failures >= len(DELAYS_SECONDS):
                    self._tell(f"the engine did not come back after {failures} attempts")
                    self.given_up.set()
                    return
                await asyncio.sleep(DELAYS_SECONDS[failures])
                failures += 1
                try:
                    await self._begin(await self._start())
                except (StartError, EngineError) as error:
                    self._tell(f"the engine could not be started: {error.message}")
            self.restarts += 1
            for callback in self.restarted:
                callback()
            self._tell(f"the engine is back after {loop.time() - began:.1f} s")

    async def _begin(self, client: ProcessClient) -> None:
        """Tell a new process what the old one knew, then let it take requests."""
        try:
            for tenant, settings in self._tenants.items():
                client.set_tenant(tenant, *settings)
            for name, (prompt, pin) in self._prompts.items():
                with contextlib.suppress(EngineError):  # fewer pages than before: not pinned, or not shared
                    await client.publish_prompt(name, prompt, pin)
        except BaseException:
            await client.close()
            raise
        self._client = client

    async def _end_of(self, client: ProcessClient) -> str:
        """Wait until a process is gone, or kill it because it stands still; how it ended, in words."""
        while client.alive:
            asked = asyncio.ensure_future(client.step_seconds())
            # Twice half of the time: when this process itself was stopped, what has arrived meanwhile is read first.
            for _ in range(2):
                if not asked.done():
                    await asyncio.wait({asked}, timeout=self._silent_s / 2)
            if not asked.done():
                asked.cancel()
                client.process.kill()
                await client.gone()
                return f"did not answer for {self._silent_s:g} s and was ended"
            if asked.exception() is None and asked.result() > self._stuck_s:
                client.process.kill()
                await client.gone()
                return f"was in one step for more than {self._stuck_s:g} s and was ended"
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(client.gone(), PING_SECONDS)
        return "ended unexpectedly"
