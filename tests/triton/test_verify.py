"""Verification in Triton's interpreter gives the reference's tokens, bit by bit."""

import pytest
import torch

from kernels.reference.verify import verify as reference
from kernels.triton import sample as sample_module
from kernels.triton import verify as verify_module
from kernels.triton.verify import verify
from tests.kernels.test_verify import requests


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several chunks in a small vocabulary."""
    monkeypatch.setattr(sample_module, "BLOCK", 64)
    monkeypatch.setattr(sample_module, "GROUP", 16)
    monkeypatch.setattr(sample_module, "FEW", 16)
    monkeypatch.setattr(sample_module, "REGISTERS", 64)
    monkeypatch.setattr(verify_module, "BLOCK", 64)


@pytest.mark.parametrize("with_probabilities", [False, True])
@pytest.mark.parametrize("padding", [0, 2])
def test_verifies_as_the_reference(with_probabilities, padding) -> None:
    generator = torch.Generator().manual_seed(5)
    arguments = requests([3, 0, 4, 2, 1], 100, generator)
    rows = len(arguments["logits"])
    if with_probabilities:
        near = arguments["logits"] + torch.randn(rows, 100, generator=generator)
        arguments["draft_probabilities"] = near.softmax(-1)
        arguments["min_p"] = torch.tensor([0.0, 0.1, 0.01, 0.0, 0.05])
    else:
        arguments["bitmask"] = torch.randint(-(2**31), 2**31, (rows, 4), generator=generator).int() | 1
    expected = reference(**arguments)
    for name in ("logits", "draft", "draft_probabilities", "bitmask"):
        if name in arguments and padding:
            value = arguments[name]
            arguments[name] = torch.cat([value, value[:padding]])
    result = verify(**arguments)
    assert torch.equal(result.accepted, expected.accepted)
    assert torch.equal(result.token, expected.token)


def test_no_requests() -> None:
    result = verify(**requests([], 10, torch.Generator()))
    assert result.accepted.shape == result.token.shape == (0,)
