"""What an engine process is told when it starts. Plain numbers and paths; no defaults that depend on the machine."""

import msgspec


class EngineOptions(msgspec.Struct, frozen=True):
    """``model``: checkpoint folder. ``kv_memory``: bytes for KV pages, 0 to choose from the free memory.

    ``dtype``: ``auto``, ``float32``, ``bfloat16`` or ``float16``. ``weights``: ``auto`` (as ``dtype``) or ``int8``.
    ``page_size``: tokens of a page, 0 to choose. ``threads``: for the forward pass, 0 to choose. ``max_step_tokens``:
    most tokens computed in one step (decodes and prefill chunks together), 0 to choose. ``inter_token_ms``: aim for the
    time between two tokens of a stream, 0 to choose; ``isolation_ms``: longest step for a loud tenant beside quiet
    ones, 0 for a quarter of that. ``overlap``: plan the next step while one runs. ``arm``: see
    ``scheduler.arms``.
    """

    model: str
    dtype: str = "auto"
    weights: str = "auto"
    kv_memory: int = 0
    page_size: int = 0
    max_running: int = 64
    max_waiting: int = 1024
    max_step_tokens: int = 0
    max_context: int = 0
    threads: int = 0
    inter_token_ms: float = 0.0
    isolation_ms: float = 0.0
    overlap: bool = True
    arm: str = "shared"
