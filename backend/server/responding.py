"""One response from being accepted to its end: the engine's events in, the protocol's events out into its record.

Knows no socket, no clock and no engine; who reads the record is told that there is something to take.

    preparing --prepared--> generating --(stop, length, cancelled, failed)--> [saving --saved-->] over
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from backend.engine.messages import Output, Started, Submit
from backend.errors import BanyanError
from backend.server.chat_model import ChatModel
from backend.server.conversations import Past, StoredTurn
from backend.server.effects import Abandon, Generate, RunEffect, Save
from backend.server.errors import failure
from backend.server.events import ServerEvent
from backend.server.identity import Identity
from backend.server.logprobs import ShownToken, TokenEntry
from backend.server.record import Record, logprob_bytes
from backend.server.reply import Reply
from backend.server.response_stream import ResponseStream
from backend.server.sampling import Options
from backend.text.conversation import Prompt
from backend.text.template import Message

_REPEATED_BYTES = 128 << 10  # four events of the end are then half of a socket's budget


class Follower(Protocol):
    """Whoever reads a response's record: a socket, or an HTTP answer."""

    def news(self, response: "Responding") -> None:
        """There is something to take."""
        ...

    def refused(self, response: "Responding", error: BanyanError) -> None:
        """It could not begin; nothing else comes of it."""
        ...

    def lost(self, response: "Responding") -> None:
        """Somebody else reads it from now on."""
        ...


class Responding:
    """``key``: the engine's id; ``lane``: the client's name for it; ``extensions``: send ``x.*`` events, and keep the
    events for whoever comes back; ``warms``: compute the prompt only; ``stores``: save the turn before the end is told;
    ``whole``: the end has all log-probabilities again, however many.
    """

    __slots__ = (
        "_act",
        "_base",
        "_began",
        "_ending",
        "_messages",
        "_model",
        "_prompt",
        "_reply",
        "_stores",
        "_stream",
        "_warms",
        "_whole",
        "error",
        "extensions",
        "follower",
        "identity",
        "key",
        "lane",
        "options",
        "over",
        "past",
        "record",
        "tenant",
    )

    def __init__(
        self,
        key: int,
        identity: Identity,
        lane: str | None,
        stream: ResponseStream,
        options: Options,
        model: ChatModel,
        began: float,
        act: Callable[[RunEffect], None],
        *,
        extensions: bool,
        warms: bool,
        stores: bool,
        whole: bool = False,
    ) -> None:
        self.key = key
        self.identity = identity
        self.tenant = identity.tenant
        self.lane = lane
        self.extensions = extensions
        self.over = False
        self.past: Past | None = None  # once it has ended well
        self.error: BanyanError | None = None  # when it failed
        self.follower: Follower | None = None
        self.record = Record(stream.delta_of, keep=extensions, most_bytes=model.limits.ring_bytes)
        self._stream = stream
        self.options = options
        self._model = model
        self._began = began
        self._act = act
        self._warms = warms
        self._stores = stores
        self._whole = whole
        self._prompt: Prompt | None = None
        self._base: Past | None = None
        self._messages: tuple[Message, ...] = ()
        self._reply: Reply | None = None
        self._ending: tuple[str, str] | None = None  # finish and text, while the turn is being saved

    @property
    def id(self) -> str:
        """The response's id."""
        return self._stream.id

    @property
    def kept_bytes(self) -> int:
        """About what it costs to keep it after its end."""
        turn = self.past.conversation if self.past is not None else None
        return 2048 + self.record.bytes + (0 if turn is None else 4 * len(turn.ids))

    def continues(self, base: Past | None, messages: tuple[Message, ...]) -> None:
        """What a response that only warms leaves for the next turn: all as it was, and its own messages."""
        self._base, self._messages = base, messages

    def prepared(self, prompt: Prompt, submit: Submit, position: int) -> None:
        """The prompt is made. ``position``: how many go before it, itself counted; 0 when it runs at once."""
        self._prompt = prompt
        self._reply = self._model.reply(len(prompt.ids), self.options, self._began)
        if position:
            self._add(self._stream.queued(self.options.sampling, position))
        self._add(self._stream.created(self.options.sampling))
        self._act(Generate(submit))

    def engine_event(self, event: Started | Output, now: float) -> None:
        """What the engine says. Nothing that comes after the end is heard."""
        prompt, reply = self._prompt, self._reply
        if prompt is None or reply is None or self.over or self._ending is not None:
            return
        if isinstance(event, Started):
            reply.started(event)
            if self.extensions:
                saved = self._model.prefill_rate.saved_ms(event.cached)
                self._add(self._stream.cache(prompt, event.cached, saved))
            self._add(*self._stream.started(empty=self._warms))
        elif event.finish == "error":
            self.fail(failure(event))
        elif self._warms:
            reply.first_token(now)
            self._end("deadline" if event.finish == "deadline" else "stop", "")
            if not event.finish:
                self._act(Abandon(self.key))
        else:
            known = len(reply.logprobs)
            text = reply.output(event, now)
            self._say(text, reply.logprobs[known:])
            if reply.finish:
                if not event.finish:  # a stop string: the engine does not know it is over
                    self._act(Abandon(self.key))
                self._end(reply.finish, reply.text)

    def fail(self, error: BanyanError) -> None:
        """The engine failed it, or is gone."""
        if self.over or self._reply is None or self._ending is not None:
            return
        self.error = error
        usage, text = self._reply.usage(), "" if self._warms else self._reply.text
        self._finish(self._stream.failed(error, text, usage))

    def cancel(self, reason: str = "cancelled") -> None:
        """End it now; idempotent."""
        if self.over or self._ending is not None:
            return
        if self._prompt is None or self._reply is None:  # not prepared yet: it begins and ends at once, with nothing
            self._add(self._stream.created(self.options.sampling))
            usage = self._model.reply(0, self.options, self._began).usage()
            self._finish(*self._stream.ended(reason, "", usage))
            return
        self._act(Abandon(self.key))
        self._say(self._reply.end(reason))
        self._end(reason, self._reply.text)

    def saved(self, stored: bool) -> None:
        """The turn was saved, or could not be: the end says which."""
        if self._ending is None or self._reply is None:
            return
        finish, text = self._ending
        self._ending = None
        self._stream.stored = stored
        self._finish(*self._stream.ended(finish, text, self._reply.usage(), self._repeated(self._reply)))

    def _end(self, finish: str, text: str) -> None:
        prompt, reply = self._prompt, self._reply
        assert prompt is not None and reply is not None  # it was active
        if self._warms:
            base = self._base or Past(None)
            self.past = Past(base.conversation, (*base.waiting, *self._messages))
        else:
            self.past = Past(self._model.encoder.finish(prompt, reply.tokens, text, reply.cut))
        if not self._stores:
            self._finish(*self._stream.ended(finish, text, reply.usage(), self._repeated(reply)))
            return
        self._ending = (finish, text)
        response = self._stream.final(finish, text, reply.usage(), self._logprobs(reply))
        self._act(Save(self.key, self.tenant, self.id, StoredTurn.of(response, self.past)))

    def _logprobs(self, reply: Reply) -> list[TokenEntry]:
        return self._model.logprobs(reply.logprobs)

    def _repeated(self, reply: Reply) -> list[TokenEntry]:
        """Those that the four events of the end say once more: of a long answer none, where an event may be so large
        only, as on a socket; its deltas had them."""
        entries = self._logprobs(reply)
        return entries if self._whole or logprob_bytes(entries) <= _REPEATED_BYTES else []

    def _finish(self, *events: ServerEvent) -> None:
        self.over = True
        self._add(*events)
        self._reply = None

    def _say(self, text: str, logprobs: Sequence[ShownToken] = ()) -> None:
        if text:
            if logprobs:
                self.record.add(self._stream.delta_of(text, self._model.logprobs(logprobs)))
            else:
                self.record.add_text(text)
            if self.follower is not None:
                self.follower.news(self)

    def _add(self, *events: ServerEvent) -> None:
        for event in events:
            self.record.add(event)
            if self.follower is not None:  # one by one: who keeps up has taken each before the record grows
                self.follower.news(self)
