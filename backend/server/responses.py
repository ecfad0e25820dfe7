"""All responses of this server, sans I/O: made, prepared, followed, left alone, found again, forgotten.

Knows who owns what and for how long. Knows no socket, no asyncio, no engine; ids and times are arguments, what is to be
done goes out through ``act``. A response outlives its socket here: for the grace while it is written, and for a while
after its end, so that its reader can come back.
"""

from collections.abc import Callable, Mapping

import msgspec

from backend.engine.messages import Output, Started
from backend.errors import BanyanError, RequestError
from backend.server.asked import check_metadata, instructions_of, messages_of, refuse_unsupported, sampling_of
from backend.server.chat_model import ChatModel
from backend.server.conversations import ConversationStore, Past, prompt_of
from backend.server.effects import Prepare, RunEffect
from backend.server.events import ResponseCreate
from backend.server.identity import Identity
from backend.server.responding import Follower, Responding
from backend.server.response_stream import ResponseStream
from backend.text.conversation import Prompt


class Asker(msgspec.Struct, frozen=True):
    """Who creates a response. ``nearby``: histories of its socket; ``stores``: what an absent ``store`` means;
    ``whole``: as in ``Responding``."""

    identity: Identity
    extensions: bool = False
    nearby: Mapping[str, Past] = {}
    stores: bool = False
    whole: bool = False


class _Left(msgspec.Struct):
    """When a response lost its reader, or ended."""

    response: Responding
    at: float


class Responses:
    """``act``: carries out effects; ``position``: how many requests go before one handed in now, itself counted, 0 when
    it would run at once."""

    def __init__(
        self,
        model: ChatModel,
        store: ConversationStore,
        act: Callable[[RunEffect], None],
        *,
        new_request: Callable[[], int],
        new_id: Callable[[], str],
        position: Callable[[], int] = lambda: 0,
    ) -> None:
        self.model = model
        self.store = store
        self.draining = False
        self.refused: Callable[[Identity, BanyanError, float], None] = lambda identity, error, began: None
        self._act = act
        self._new_request = new_request
        self._new_id = new_id
        self._position = position
        self._open: dict[int, Responding] = {}
        self._by_id: dict[str, Responding] = {}
        self._orphans: dict[str, _Left] = {}  # in the order of being left
        self._ended: dict[str, _Left] = {}  # in the order of ending
        self._prepares: dict[int, Prepare] = {}
        self.kept_bytes = 0

    def __len__(self) -> int:
        return len(self._open)

    # ---- what clients want -----------------------------------------------------------------------

    def create(self, event: ResponseCreate, asker: Asker, now: float, wall: int) -> Responding:
        """A response that has not begun: set its follower, then ``begin``. Raises ``BanyanError`` for what is wrong."""
        if self.draining:
            raise BanyanError("the server is going down", code="server_draining", status=503)
        model, tenant = self.model, asker.identity.tenant
        model.check_name(event.model)
        refuse_unsupported(event)
        check_metadata(event.metadata, model.limits)
        options = model.check_options(sampling_of(event))
        warms = event.generate is False
        if warms:
            options = msgspec.structs.replace(options, max_tokens=1, stops=())
        instructions = instructions_of(event, model.prompts, tenant)
        messages = tuple(messages_of(event, model.limits))
        if instructions is None and event.previous_response_id is None:
            instructions = model.prompts.imposed(tenant, messages)
        past = self._past(event.previous_response_id, asker)
        if warms and not messages and instructions is None and event.previous_response_id is None:
            raise RequestError("there is nothing to warm: give instructions, a prompt or input", param="input")
        key = self._new_request()
        response = Responding(
            key,
            asker.identity,
            event.stream_id,
            ResponseStream(f"resp_{self._new_id()}", f"msg_{self._new_id()}", wall, model.name, event),
            options,
            model,
            now,
            self._act,
            extensions=asker.extensions,
            warms=warms,
            stores=asker.stores if event.store is None else event.store,
            whole=asker.whole,
        )

        def work() -> Prompt:
            base = past or (self._load(tenant, event.previous_response_id) if event.previous_response_id else None)
            if not warms:
                return prompt_of(model.encoder, base, instructions, messages)
            given = () if instructions is None else ({"role": "system", "content": instructions},)
            response.continues(base, (*given, *messages))
            if base is None and not messages:
                return model.encoder.system_prompt_alone(instructions or "")
            return prompt_of(model.encoder, base, instructions, messages)

        size = len(instructions or "") + sum(len(message["content"]) for message in messages)
        loads = past is None and event.previous_response_id is not None
        self._prepares[key] = Prepare(key, work, size, loads)
        return response

    def begin(self, response: Responding) -> None:
        """Have it prepared and generated."""
        self._open[response.key] = self._by_id[response.id] = response
        self._act(self._prepares.pop(response.key))

    def resume(self, identity: Identity, response_id: str, after: int, follower: Follower) -> Responding:
        """Let ``follower`` read it behind number ``after``; whoever read it has lost it. Raises ``RequestError``."""
        response = self.find(identity.tenant, response_id)
        if response is None or not response.extensions:
            raise self._unknown(response_id)
        response.record.rewind(after)
        if response.follower is not None and response.follower is not follower:
            response.follower.lost(response)
        self._orphans.pop(response_id, None)
        response.follower = follower
        return response

    def find(self, tenant: str, response_id: str) -> Responding | None:
        """A response that is open, or has ended a short while ago, of exactly this id and tenant."""
        found = self._by_id.get(response_id)
        return found if found is not None and found.tenant == tenant else None

    def id_of(self, request: int) -> str | None:
        """The response that is the engine's ``request``."""
        found = self._open.get(request)
        return found.id if found is not None else None

    def leave(self, response: Responding, now: float, *, grace: bool = True) -> None:
        """Its follower is gone. It ends at once, or with ``grace`` when nobody has come back in time."""
        response.follower = None
        if response.over:
            return
        if grace and response.extensions:
            self._orphans[response.id] = _Left(response, now)
            return
        response.cancel()
        self._settle(response, now)

    def cancel(self, response: Responding, now: float, reason: str = "cancelled") -> None:
        """End it now; idempotent."""
        response.cancel(reason)
        self._settle(response, now)

    def cancel_all(self, now: float, reason: str) -> None:
        """End everything that is open."""
        for response in list(self._open.values()):
            self.cancel(response, now, reason)

    def forget(self, tenant: str, response_id: str) -> None:
        """Keep nothing of one that has ended."""
        if (found := self.find(tenant, response_id)) is not None and found.over:
            self._drop(response_id)

    # ---- what the shells report ------------------------------------------------------------------

    def prepared(self, key: int, result: Prompt | BanyanError, now: float) -> None:
        """The prompt of ``Prepare(key)`` is made, or could not be. Nothing for one that was cancelled meanwhile."""
        response = self._open.get(key)
        if response is None or response.over:
            return
        try:
            if isinstance(result, BanyanError):
                raise result
            submit = self.model.submit(key, result, response.options, identity=response.identity)
        except BanyanError as error:
            del self._open[key], self._by_id[response.id]
            self._orphans.pop(response.id, None)
            response.over = True
            self.refused(response.identity, error, now)
            if response.follower is not None:
                response.follower.refused(response, error)
            return
        response.prepared(result, submit, self._position())
        self._settle(response, now)

    def engine_event(self, key: int, event: Started | Output, now: float) -> None:
        """What the engine says of a request. Unknown keys (cancelled in the meantime) are ignored."""
        if (response := self._open.get(key)) is not None:
            response.engine_event(event, now)
            if response.over:
                self._settle(response, now)

    def engine_gone(self, key: int, error: BanyanError, now: float) -> None:
        """A request ended without an end, or was not taken."""
        if (response := self._open.get(key)) is not None:
            response.fail(error)
            self._settle(response, now)

    def saved(self, key: int, stored: bool, now: float) -> None:
        """``Save(key)`` was done, or could not be."""
        if (response := self._open.get(key)) is not None:
            response.saved(stored)
            self._settle(response, now)

    def tick(self, now: float) -> None:
        """End what nobody came back for, forget what ended long ago. O(those)."""
        limits = self.model.limits
        while self._orphans and now - (left := next(iter(self._orphans.values()))).at >= limits.grace_seconds:
            del self._orphans[left.response.id]
            self.cancel(left.response, now)
        while self._ended and now - (left := next(iter(self._ended.values()))).at >= limits.ring_seconds:
            self._drop(left.response.id)

    # ---- inside ----------------------------------------------------------------------------------

    def _settle(self, response: Responding, now: float) -> None:
        """Take one that is over out of what is open."""
        if not response.over or self._open.pop(response.key, None) is None:
            return
        self._orphans.pop(response.id, None)
        self._ended[response.id] = _Left(response, now)
        self.kept_bytes += response.kept_bytes
        while self.kept_bytes > self.model.limits.rings_bytes and len(self._ended) > 1:
            self._drop(next(iter(self._ended)))

    def _drop(self, response_id: str) -> None:
        left = self._ended.pop(response_id)
        self.kept_bytes -= left.response.kept_bytes
        del self._by_id[response_id]

    def _past(self, response_id: str | None, asker: Asker) -> Past | None:
        """The history when it is at hand; None when there is none, or the store has to be asked."""
        if response_id is None:
            return None
        near = asker.nearby.get(response_id)
        if near is not None:
            return near
        found = self.find(asker.identity.tenant, response_id)
        return found.past if found is not None and found.over else None

    def _load(self, tenant: str, response_id: str) -> Past:
        turn = self.store.load(tenant, response_id)
        if turn is None:
            raise RequestError(
                f"there is no finished response {response_id!r}",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        return turn.past()

    @staticmethod
    def _unknown(response_id: str) -> RequestError:
        return RequestError(
            f"there is no response {response_id!r}", code="response_not_found", status=404, param="response_id"
        )
