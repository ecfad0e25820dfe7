"""Keeps the engine as the tenants' tables say: weights and quotas, public prompts shared and pinned, private ones warm.

Knows engine client and directory. A public prompt's latest version is published, the one before withdrawn; a private
one is computed once in its tenant's own part of the cache, where nobody else can find or time it.
"""

import asyncio
import logging
from array import array

from backend.engine.messages import Submit
from backend.errors import BanyanError, EngineError
from backend.server.service import ChatService
from backend.server.tenant_prompts import VARIABLE
from backend.tenants.prompt_store import PromptVersion
from backend.tenants.tenant_store import Tenant
from scheduler.plan import Sampling

_log = logging.getLogger("banyan.server")


class EngineSettings:
    """``sync`` may be called whenever something has changed; it does what is to do, one call at a time. ``warmed``: how
    many of how many private prompts the last one has computed so far."""

    def __init__(self, service: ChatService) -> None:
        self._service = service
        self._tenants: dict[str, Tenant] = {}
        self._public: dict[str, tuple[bytes, str]] = {}
        self.warmed = (0, 0)
        self._warmed: set[PromptVersion] = set()
        self._rendered: dict[PromptVersion, array[int] | None] = {}
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def changed(self) -> None:
        """Have a ``sync`` done soon."""
        task = asyncio.create_task(self.sync())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def engine_restarted(self) -> None:
        """A new engine has an empty cache: what was warm is computed again."""
        self._warmed.clear()
        self.changed()

    async def sync(self) -> None:
        """Bring the engine up to date. Raises nothing when the engine is gone: others notice that."""
        async with self._lock:
            try:
                self._set_tenants()
                await self._set_prompts()
            except EngineError as error:
                if self._service.engine.alive:
                    _log.warning("the engine does not follow the tenants' settings: %s", error.message)

    def _set_tenants(self) -> None:
        known = dict(self._service.tenancy.directory.content.tenants)
        for name in self._tenants.keys() - known.keys():
            self._service.engine.set_tenant(name)
        for name, tenant in known.items():
            if self._tenants.get(name) != tenant:
                self._service.engine.set_tenant(name, tenant.weight, tenant.page_limit, tenant.page_watermark)
        self._tenants = known

    async def _set_prompts(self) -> None:
        directory, engine = self._service.tenancy.directory, self._service.engine
        latest = [directory.latest(prompt) for prompt in directory.content.prompts.values()]
        wanted: dict[str, tuple[bytes, str]] = {}
        private: dict[PromptVersion, array[int]] = {}
        now = set(latest)
        self._warmed &= now
        self._rendered = {version: ids for version, ids in self._rendered.items() if version in now}
        for version in latest:
            if version not in self._rendered:
                self._rendered[version] = await asyncio.to_thread(self._ids, version)
            ids = self._rendered[version]
            if ids is None or len(ids) < engine.info.page_size:
                continue  # less than a page cannot be shared
            name = f"{version.tenant}/{version.id}@{version.version}"
            if version.public:
                wanted[name] = (ids.tobytes(), "" if version.pin == "none" else version.pin)
            elif version.pin != "none" and version not in self._warmed:
                private[version] = ids
        for name in [name for name, it in self._public.items() if wanted.get(name) != it]:
            engine.withdraw_prompt(name, self._public.pop(name)[0])
        for name in wanted.keys() - self._public.keys():
            if await self._publish(name, *wanted[name]):
                self._public[name] = wanted[name]
        self.warmed = (0, len(private))
        for done, (version, ids) in enumerate(private.items(), 1):
            self._warmed.add(version)
            await self._warm(version, ids)
            self.warmed = (done, len(private))

    async def _publish(self, name: str, ids: bytes, pin: str) -> bool:
        """Pinned as asked or, where the budget of pins does not allow it, not pinned."""
        for kind in dict.fromkeys((pin, "")):
            try:
                await self._service.engine.publish_prompt(name, ids, kind)
                return True
            except EngineError as error:
                if error.code != "prompt_not_published":
                    raise
                _log.warning("the system prompt %s is not %s: %s", name, "pinned" if kind else "shared", error.message)
        return False

    async def _warm(self, version: PromptVersion, ids: "array[int]") -> None:
        engine = self._service.engine
        sampling = Sampling(temperature=0.0)
        request = engine.next_request_id()
        generation = engine.generate(Submit(request, ids.tobytes(), 1, sampling, tenant=version.tenant))
        async for _ in generation:
            pass

    def _ids(self, version: PromptVersion) -> "array[int] | None":
        """What every conversation on it begins with: up to the first variable, when it has any."""
        prefix = self._service.model.encoder.system_prefix
        try:
            if not VARIABLE.search(version.text):
                return prefix(version.text)
            one, other = (prefix(VARIABLE.sub(word, version.text)) for word in ("a", "7"))
            same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
            return one[:same]
        except BanyanError as error:
            _log.warning("the system prompt %s/%s cannot be rendered: %s", version.tenant, version.id, error.message)
            return None
