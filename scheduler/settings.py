"""The scheduler's own settings: plain numbers, validated once."""

import msgspec


class Settings(msgspec.Struct, frozen=True):
    """Sizes of one engine.

    page_size        tokens per KV page
    pages            in the KV pool
    max_running      rows of the runner's block table: most requests in one step
    max_step_tokens  most tokens computed in one step, decodes and prefill chunks together; at least ``max_running``,
                     because every decode is in every step
    max_context      most tokens of prompt and output of one request
    max_waiting      requests in the queue; more are refused
    """

    page_size: int
    pages: int
    max_running: int = 64
    max_step_tokens: int = 512
    max_context: int = 8192
    max_waiting: int = 1024

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer, got {value!r}")
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.max_step_tokens < self.max_running:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be at least max_running ({self.max_running}): "
                "every running request decodes a token in every step"
            )
