"""Partial results put together equal the softmax over all keys, whatever the parts; empty parts weigh nothing."""

from itertools import pairwise

import pytest
import torch

from kernels.triton.merge import merge


def split_softmax(scores, values, edges):
    """Partial results of parts of the keys: [parts, heads, head_dim] and base-2 LSE [parts, heads], in fp32."""
    parts, lses = [], []
    for begin, end in pairwise(edges):
        part = scores[:, begin:end]
        lses.append(
            torch.logsumexp(part, 1) * 1.4426950408889634 if end > begin else torch.full((len(scores),), -torch.inf)
        )
        parts.append(part.softmax(1) @ values[begin:end] if end > begin else torch.zeros(len(scores), values.shape[1]))
    return torch.stack(parts).float(), torch.stack(lses).float()


def run(partial, lse, out, rows, most=None):
    """Merge ``rows`` {token: slots} into ``out``."""
    begins = torch.tensor([0, *(len(slots) for slots in rows.values())]).cumsum(0).int()
    slots = torch.tensor([slot for slots in rows.values() for slot in slots] or [0], dtype=torch.int32)
    tokens = torch.tensor([*rows], dtype=torch.int32)
    merge(partial, lse, out, tokens, begins, slots, torch.tensor([len(rows)], dtype=torch.int32), most or len(rows))


@pytest.mark.parametrize("edges", [[0, 40], [0, 7, 40], [0, 1, 2, 3, 20, 39, 40], [0, 0, 10, 10, 40, 40]])
@pytest.mark.parametrize(("heads", "dim"), [(1, 64), (6, 80), (8, 128)])
def test_parts_of_a_softmax(edges, heads, dim) -> None:
    scores = torch.randn(heads, 40, dtype=torch.float64) * 5
    values = torch.randn(40, dim, dtype=torch.float64)
    partial, lse = split_softmax(scores, values, edges)
    parts = len(partial)
    order = torch.randperm(parts + 1)[:parts]  # slots in any order, and one that is nobody's
    slots = torch.full((parts + 1, heads, dim), float("nan"))
    lses = torch.full((parts + 1, heads), float("nan"))
    slots[order], lses[order] = partial, lse
    out = torch.full((3, heads, dim), 7.0)
    run(slots, lses, out, {1: order.tolist()})
    torch.testing.assert_close(out[1].double(), scores.softmax(1) @ values, atol=2e-6, rtol=0)
    assert (out[[0, 2]] == 7).all()


def test_far_apart_parts() -> None:
    """Weights that differ by more than fp32's range."""
    partial = torch.stack([torch.full((2, 64), 1.0), torch.full((2, 64), 2.0)])
    lse = torch.tensor([[-3000.0, 3000.0], [3000.0, -3000.0]])
    out = torch.zeros(1, 2, 64)
    run(partial, lse, out, {0: [0, 1]})
    assert (out[0, 0] == 2).all() and (out[0, 1] == 1).all()


def test_only_empty_parts() -> None:
    out = torch.full((1, 4, 64), 7.0)
    run(torch.zeros(2, 4, 64), torch.full((2, 4), -torch.inf), out, {0: [0, 1]})
    assert (out == 0).all()


def test_ragged_rows_and_a_grid_with_room() -> None:
    partial, lse = torch.randn(6, 4, 64), torch.randn(6, 4)
    rows = {4: [5], 0: [0, 3, 1], 2: [2, 4]}
    out = torch.full((5, 4, 64), 7.0, dtype=torch.float16)
    run(partial, lse, out, rows, most=5)
    for token, slots in rows.items():
        weights = torch.softmax(lse[slots].double() * 0.6931471805599453, 0)
        expected = (weights[..., None] * partial[slots].double()).sum(0)
        torch.testing.assert_close(out[token].double(), expected, atol=2e-3, rtol=0)
    assert (out[[1, 3]] == 7).all()
