"""Which architecture names are known, and who reads their config."""

from collections.abc import Callable, Mapping
from typing import Any

from backend.models.config import ModelConfig
from backend.models.llama import read_llama, read_mistral
from backend.models.qwen2 import read_qwen2
from backend.models.qwen3 import read_qwen3
from backend.models.settings import wrong

READERS: dict[str, Callable[[Mapping[str, Any]], ModelConfig]] = {
    "LlamaForCausalLM": read_llama,
    "MistralForCausalLM": read_mistral,
    "Qwen2ForCausalLM": read_qwen2,
    "Qwen3ForCausalLM": read_qwen3,
}


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """The decoder that a parsed ``config.json`` describes. Raises ``StartError`` naming the key that is wrong."""
    names = raw.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise wrong(f"architectures must name one architecture, not {names!r}")
    if names[0] not in READERS:
        raise wrong(f"architecture {names[0]} is not supported ({', '.join(READERS)} are)")
    return READERS[names[0]](raw)
