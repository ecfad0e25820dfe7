"""The bounds of this server, in one place. Every number and list that a client sends is held against them."""

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """``*_bytes`` are bytes on the wire, ``*_seconds`` seconds, the rest are counts or characters.

    ``choices``: answers to one prompt (``n``); ``prompts``: in one request; ``answers``: of one request in all;
    ``scored_tokens``: of prompts whose log-probabilities are asked for, in one request.
    ``queue_seconds``: longest wait until the engine begins; a request that would wait longer is refused at once.
    ``grace_seconds``: a response whose socket is lost goes on so long; ``ring_seconds``: its events are kept so long
    after its end, at most ``ring_bytes`` of them,
    and ``rings_bytes`` of all that have ended.
    """

    message_bytes: int = 1 << 20
    send_queue_bytes: int = 1 << 20
    lanes: int = 16
    open_requests: int = 1024
    queue_seconds: float = 60.0
    messages: int = 2048
    content_parts: int = 256
    choices: int = 16
    prompts: int = 128
    answers: int = 128
    scored_tokens: int = 1 << 15
    logit_biases: int = 1024
    stop_strings: int = 4
    stop_chars: int = 256
    id_chars: int = 128
    metadata_pairs: int = 16
    metadata_chars: int = 512
    responses_kept: int = 32
    malformed_messages: int = 32
    sockets_per_key: int = 64
    first_message_seconds: float = 60.0
    idle_seconds: float = 600.0
    age_seconds: float = 3600.0
    grace_seconds: float = 30.0
    ring_bytes: int = 1 << 20
    ring_seconds: float = 90.0
    rings_bytes: int = 64 << 20
