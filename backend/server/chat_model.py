"""The model as the protocols see it: its name, its text side, its bounds. No engine, no clock, no sockets."""

import secrets
from array import array
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from backend.engine.messages import Submit, TokenLogprobs
from backend.errors import RequestError
from backend.server.gate import Gate
from backend.server.identity import LOCAL, Identity
from backend.server.limits import Limits
from backend.server.logprobs import PromptToken, ShownToken, TextLogprobs, TokenEntry, text_logprobs, token_entries
from backend.server.prefill_rate import PrefillRate
from backend.server.prompts import PromptSource
from backend.server.reply import Reply
from backend.server.sampling import Asked, Defaults, Options, check_options
from backend.text.conversation import ConversationEncoder, Prompt
from backend.text.detokenize import Detokenizer
from backend.text.stop import StopStrings
from backend.text.template import ChatTemplate
from backend.text.tokenizer import TextTokenizer


class ChatModel:
    """Makes prompts, engine requests and replies. Thread-safe."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        max_context: int,
        vocab_size: int,
        prompts: PromptSource,
        limits: Limits,
        gate: Gate,
        new_seed: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        """``vocab_size``: width of the engine's logits. Raises ``StartError`` naming the file that is wrong."""
        self.name = name
        self.max_context = max_context
        self.prompts = prompts
        self.limits = limits
        self._gate = gate
        self.prefill_rate = PrefillRate()
        self.vocab_size = vocab_size
        self._new_seed = new_seed
        self._defaults = Defaults.load(folder)
        self._tokenizer = tokenizer = TextTokenizer.load(folder)
        self._detokenizer = Detokenizer(tokenizer)
        self.encoder = ConversationEncoder(
            tokenizer, ChatTemplate.load(folder, tokenizer.special_tokens), self._detokenizer
        )
        end = self.encoder.end_of_turn()
        self._stop_tokens = sorted(tokenizer.stop_tokens | ({end} if end is not None else set()))

    def check_name(self, name: str | None) -> None:
        """Raises ``RequestError`` (404, ``model_not_found``) for another model's name; None means this one."""
        if name is not None and name != self.name:
            raise RequestError(
                f"the model {name[:100]!r} does not exist; this server has {self.name!r}",
                code="model_not_found",
                status=404,
                param="model",
            )

    def check_options(self, asked: Asked) -> Options:
        """Raises ``RequestError`` naming the field that is out of range."""
        return check_options(asked, self._defaults, self.limits, self._new_seed, self.vocab_size)

    def submit(
        self, request: int, prompt: Prompt, options: Options, param: str = "input", identity: Identity = LOCAL
    ) -> Submit:
        """The engine's request, held against the limits of who asks, and paid for.

        ``max_tokens`` is clamped to what the context has room for; where nobody named it, also, by the engine, to what
        the tenant's pages hold.

        Raises ``RequestError`` (``context_length_exceeded``) when there is no room for a single token, and what
        ``Gate.admit`` raises.
        """
        size = len(prompt.ids)
        room = self.max_context - size
        if room < 1:
            raise RequestError(
                f"this model's context is {self.max_context} tokens; the prompt alone has {size}",
                code="context_length_exceeded",
                param=param,
            )
        if max(prompt.ids, default=0) >= self.vocab_size:
            raise RequestError("the prompt has a token that the model does not know", param=param)
        self._gate.admit(identity, request, prompt)
        return Submit(
            request=request,
            prompt=prompt.ids.tobytes(),
            max_tokens=room if options.max_tokens is None else min(options.max_tokens, room),
            sampling=options.sampling,
            stop_tokens=[] if options.ignore_eos else self._stop_tokens,
            tenant=identity.tenant,
            namespace=identity.namespace,
            queue_seconds=self.limits.queue_seconds,
            system_tokens=prompt.system_tokens,
            history_tokens=prompt.history_tokens,
            open_ended=options.max_tokens is None,
        )

    def reply(self, prompt_tokens: int, options: Options, began: float) -> Reply:
        """An answer that has not begun; ``began``: when its request came, in seconds."""
        return Reply(prompt_tokens, self._detokenizer.stream(), StopStrings(options.stops), began)

    def logprobs(self, shown: Iterable[ShownToken]) -> list[TokenEntry]:
        """Log-probabilities as chat completions and responses have them."""
        return token_entries(shown, self._detokenizer.token_bytes)

    def text_logprobs(self, shown: Iterable[ShownToken | PromptToken], offset: int) -> TextLogprobs:
        """Log-probabilities as completions have them; ``offset``: characters before the answer's text."""
        return text_logprobs(shown, self._detokenizer.token_bytes, offset)

    def prompt_tokens(self, ids: "array[int]", logprobs: Sequence[TokenLogprobs]) -> list[PromptToken]:
        """A prompt token by token; ``logprobs``: of all but the first."""
        stream = self._detokenizer.stream()
        shown, begin = [], 0
        for token, one in zip(ids, (None, *logprobs), strict=True):
            shown.append(PromptToken(token, one, begin))
            begin += len(stream.push((token,)))
        return shown

    def raw_ids(self, text: str) -> "array[int]":
        """The ids of a text that is a whole prompt. A control token that it spells is mere text."""
        return array("I", self._tokenizer.encode_document(text))

    def text_of(self, ids: "array[int]") -> str:
        """What ids say, control tokens left out."""
        return self._detokenizer.stream().push(ids)
