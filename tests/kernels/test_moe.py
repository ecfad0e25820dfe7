"""The reference of the mixture of experts against a loop in float64 and against a published model's code."""

import pytest
import torch

from kernels.reference.moe import moe, route


@pytest.mark.parametrize("renormalise", [False, True])
def test_route(renormalise) -> None:
    logits = torch.randn(9, 7, generator=torch.Generator().manual_seed(1))
    weights, experts = route(logits, 3, renormalise)
    for row, chosen, weight in zip(logits.double(), experts.long(), weights.double(), strict=True):
        assert chosen.tolist() == sorted(range(7), key=lambda e, row=row: -float(row[e]))[:3]
        expected = row.softmax(-1)[chosen]
        torch.testing.assert_close(weight, expected / expected.sum() if renormalise else expected, atol=1e-6, rtol=1e-6)


def test_route_takes_the_first_of_equals() -> None:
    assert route(torch.zeros(2, 5), 2, True)[1].tolist() == [[0, 1], [0, 1]]
    assert route(torch.zeros(0, 5), 2, True)[0].shape == (0, 2)


@pytest.mark.parametrize(
    ("tokens", "dtype", "most"), [(0, torch.float32, 0), (11, torch.float32, 1e-5), (11, torch.float16, 2e-3)]
)
def test_moe(tokens, dtype, most) -> None:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(tokens, 12, generator=generator).to(dtype)
    gate_up = torch.randn(5, 20, 12, generator=generator).to(dtype) / 4
    down = torch.randn(5, 12, 10, generator=generator).to(dtype) / 4
    weights, experts = route(torch.randn(tokens, 5, generator=generator), 2, True)
    expected = torch.zeros(tokens, 12, dtype=torch.float64)
    for token in range(tokens):
        for weight, expert in zip(weights[token].double(), experts[token].tolist(), strict=True):
            gate, up = (gate_up[expert].double() @ x[token].double()).chunk(2)
            expected[token] += weight * (down[expert].double() @ (gate / (1 + (-gate).exp()) * up))
    torch.testing.assert_close(moe(x, gate_up, down, weights, experts).double(), expected, atol=most, rtol=most)


def test_moe_as_qwen3_of_transformers() -> None:
    """The block of the published model, with its weights laid out as ours."""
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe")
    settings = transformers.Qwen3MoeConfig(
        hidden_size=16, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2, norm_topk_prob=True
    )
    torch.manual_seed(3)
    block = modeling.Qwen3MoeSparseMoeBlock(settings).eval()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.3)
        x = torch.randn(1, 9, 16)
        expected = block(x)
        expected = expected[0] if isinstance(expected, tuple) else expected
        state = block.state_dict()
        if "experts.gate_up_proj" in state:
            gate_up, down = state["experts.gate_up_proj"], state["experts.down_proj"]
        else:
            names = ("gate_proj", "up_proj", "down_proj")
            gate, up, down = (torch.stack([state[f"experts.{i}.{name}.weight"] for i in range(6)]) for name in names)
            gate_up = torch.cat([gate, up], 1)
        weights, experts = route(x[0] @ state["gate.weight"].T, 2, True)
        torch.testing.assert_close(moe(x[0], gate_up, down, weights, experts), expected[0], atol=1e-5, rtol=1e-5)
