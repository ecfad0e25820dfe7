"""Reading config.json: both spellings, the families' differences, and what is refused."""

import pytest
import torch

from backend.errors import StartError
from backend.models.registry import read_config

PLAIN = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}


def read(**changes):
    return read_config({**PLAIN, **changes})


def test_defaults() -> None:
    config = read()
    assert (config.kv_heads, config.head_dim, config.max_context, config.dtype) == (4, 16, 128, torch.float32)
    assert not (config.qkv_bias or config.output_bias or config.mlp_bias or config.qk_norm or config.tied_embeddings)


def test_old_and_new_spelling_are_the_same() -> None:
    old = read(rope_theta=5e5, rope_scaling={"rope_type": "llama3", **LLAMA3}, torch_dtype="bfloat16")
    new = read(rope_parameters={"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}, dtype="bfloat16")
    assert old == new
    assert read(rope_scaling={"type": "linear", "factor": 2.0}) == read(
        rope_parameters={"rope_type": "linear", "factor": 2.0}
    )
    assert old.rope != read(rope_theta=5e5).rope != read().rope


def test_families() -> None:
    qwen2 = read(architectures=["Qwen2ForCausalLM"], sliding_window=32, use_sliding_window=False)
    assert (qwen2.qkv_bias, qwen2.output_bias, qwen2.max_context) == (True, False, 128)
    assert read(architectures=["Qwen2ForCausalLM"], sliding_window=32, use_sliding_window=True).max_context == 32
    qwen3 = read(architectures=["Qwen3ForCausalLM"])
    assert (qwen3.qk_norm, qwen3.head_dim, qwen3.qkv_bias) == (True, 128, False)
    assert read(architectures=["MistralForCausalLM"], sliding_window=40).max_context == 40
    assert read(architectures=["MistralForCausalLM"], sliding_window=None, head_dim=32).max_context == 128


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": []}, "architectures"),
        ({"architectures": "LlamaForCausalLM"}, "architectures"),
        ({"hidden_size": None}, "hidden_size"),
        ({"vocab_size": 0}, "vocab_size"),
        ({"vocab_size": True}, "vocab_size"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"head_dim": 15}, "head_dim"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"torch_dtype": "int8"}, "int8"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"rope_scaling": {"type": "longrope"}}, "longrope"),
        ({"rope_scaling": {"type": "linear"}}, "factor"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "factor"),
        ({"rope_scaling": {"type": "llama3", **LLAMA3, "low_freq_factor": 4.0}}, "low_freq_factor"),
        ({"rope_scaling": 3}, "rope"),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"rope_theta": float("inf")}, "rope_theta"),
    ],
)
def test_refused_with_the_key(changes, word) -> None:
    with pytest.raises(StartError) as caught:
        read(**changes)
    assert word in caught.value.message
