"""The figures of the live page: asked of the engine, cut to what the viewer may see, shared by all who watch.

Knows the engine's records and the wire types. Knows no socket: ``deliver`` is given.
"""

import asyncio
import hashlib
import logging
import secrets
from array import array
from collections.abc import Awaitable, Callable

from backend.engine.messages import Lane, NodeView, Report
from backend.errors import BanyanError
from backend.server.conductor import Conductor
from backend.server.identity import Identity
from backend.server.live_events import Batch, BatchLane, LaneState, LiveEvent, Pages, Stats, TokenClasses, Topic, Tree
from backend.server.live_events import TreeNode as Node
from backend.server.service import ChatService

_FRESH_SECONDS = 0.09  # who asks within it gets what the one before got
_NODES = 200
_LANES = 256

_log = logging.getLogger("banyan.server")


class LiveFeed:
    """Answers for any number of viewers with at most eleven questions a second for each topic and kind of viewer."""

    def __init__(self, service: ChatService, conductor: Conductor) -> None:
        self._service = service
        self._conductor = conductor
        self._secret = secrets.token_bytes(16)
        self._made: dict[tuple[str, str, bool], tuple[float, asyncio.Task[LiveEvent]]] = {}
        self._before: dict[tuple[str, bool], tuple[float, int, int]] = {}

    async def watch(self, topic: Topic, identity: Identity, hz: float, deliver: Callable[[LiveEvent], None]) -> None:
        """Hand events of ``topic`` to ``deliver`` until cancelled. While the engine is away there are none."""
        while True:
            try:
                deliver(await self.event(topic, identity))
            except BanyanError:
                pass
            except Exception:
                _log.exception("the figures of %s could not be made", topic)
            await asyncio.sleep(1 / hz)

    async def event(self, topic: Topic, identity: Identity) -> LiveEvent:
        """The figures now. Raises ``EngineError`` when the engine is gone."""
        key = (topic, identity.tenant, identity.sees_everything)
        now = self._service.clock()
        made = self._made.get(key)
        if made is None or now - made[0] >= _FRESH_SECONDS:
            make: dict[Topic, Callable[[Identity], Awaitable[LiveEvent]]] = {
                "stats": self._stats,
                "tree": self._tree,
                "batch": self._batch,
            }
            self._made = {k: v for k, v in self._made.items() if now - v[0] < _FRESH_SECONDS}
            made = self._made[key] = (now, asyncio.ensure_future(make[topic](identity)))
        return await asyncio.shield(made[1])

    async def _stats(self, viewer: Identity) -> Stats:
        engine = self._service.engine
        report, lanes = await asyncio.gather(
            engine.inspect(), engine.lanes(viewer.tenant, viewer.sees_everything, _LANES)
        )
        load, everything = report.load, viewer.sees_everything
        states = [lane.state for lane in lanes]
        output = load.output_tokens if everything else self._service.tokens_of(viewer.tenant).output
        now = self._service.clock()
        before = self._before.get((viewer.tenant, everything))
        self._before[viewer.tenant, everything] = (now, load.steps, output)
        before = before or (now, 0, 0)
        seconds = now - before[0]
        found = load.hits if everything else self._service.tokens_of(viewer.tenant).hits
        missed = load.misses if everything else self._service.tokens_of(viewer.tenant).misses
        return Stats(
            of="server" if everything else "tenant",
            running=load.running - states.count("prefilling") if everything else states.count("running"),
            prefilling=states.count("prefilling"),
            waiting=load.waiting if everything else states.count("waiting") + states.count("preempted"),
            pages=_pages(report, viewer.tenant, everything),
            hits=TokenClasses(found.system, found.history, found.shared, 0),
            misses=TokenClasses(missed.system, missed.history, 0, missed.shared),
            evictions=load.evicted_pages if everything else None,
            preemptions=load.preemptions if everything else None,
            step_ms=round(engine.step_ms, 3) if everything and engine.step_ms else None,
            steps_per_s=round((load.steps - before[1]) / seconds, 2) if everything and seconds > 0 else None,
            tokens_per_s=round(max(output - before[2], 0) / seconds, 2) if seconds > 0 else None,
        )

    async def _tree(self, viewer: Identity) -> Tree:
        snapshot = await self._service.engine.look(viewer.tenant, viewer.sees_everything, _NODES)
        return Tree([self._node(node) for node in snapshot.nodes], snapshot.hidden_pages, snapshot.other_pages)

    async def _batch(self, viewer: Identity) -> Batch:
        lanes = await self._service.engine.lanes(viewer.tenant, viewer.sees_everything, _LANES)
        return Batch([self._lane(lane, viewer) for lane in lanes])

    def _node(self, node: NodeView) -> Node:
        preview = self._service.model.text_of(array("I", node.preview)) if node.preview else None
        return Node(
            node.id,
            node.parent,
            node.tenant,
            node.tokens,
            node.pages,
            node.depth_tokens,
            node.locks,
            node.pinned,
            node.hits,
            node.idle,
            preview,
        )

    def _lane(self, lane: Lane, viewer: Identity) -> BatchLane:
        mine = self._conductor.responses.id_of(lane.request) if lane.tenant == viewer.tenant else None
        state: LaneState = lane.state  # type: ignore[assignment]
        name = mine or self._opaque(lane.request)
        return BatchLane(name, lane.tenant, state, lane.done, lane.total, lane.limit, lane.chunk)

    def _opaque(self, request: int) -> str:
        """A name for a request that says nothing about how many there were."""
        digest = hashlib.blake2b(request.to_bytes(8, "little"), key=self._secret, digest_size=6)
        return f"request-{digest.hexdigest()}"


def _pages(report: Report, tenant: str, everything: bool) -> Pages:
    load = report.load
    if everything:
        held = load.pages_cached - load.pages_evictable + load.pages_private
        total = load.pages_free + load.pages_cached + load.pages_private
        return Pages(held, load.pages_evictable, load.pages_free, load.pages_pinned, total)
    mine = next((pages for pages in report.tenants if pages.tenant == tenant), None)
    if mine is None:
        return Pages(0, 0, None, None, None)
    return Pages(mine.cached - mine.evictable + mine.private, mine.evictable, None, None, None)
