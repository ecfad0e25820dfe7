"""Verification of drafts: the rules on small cases, the distribution of what comes out, independence of the batch."""

import pytest
import torch

from kernels.reference.noise import gumbel
from kernels.reference.sample import sample
from kernels.reference.verify import verify


def requests(counts, vocab, generator, **fixed):
    """Arguments for requests with ``counts`` drafts each; drafts are often the most probable token."""
    n = len(counts)
    rows = sum(counts) + n
    first = torch.tensor([0, *[count + 1 for count in counts]]).cumsum(0)
    logits = torch.randn(rows, vocab, generator=generator) * 3
    draft = torch.where(
        torch.rand(rows, generator=generator) < 0.7,
        logits.argmax(-1),
        torch.randint(0, vocab, (rows,), generator=generator),
    )
    i = torch.arange(n)
    settings = {
        "temperature": torch.tensor([1.0, 0.0, 0.5])[i % 3],
        "top_k": torch.tensor([0, 5, 0, 3])[i % 4],
        "top_p": torch.tensor([1.0, 0.9])[i % 2],
        "seed": i * 7919 - 3,
        "position": i * 3,
    }
    return {"logits": logits, "first": first, "draft": draft, **settings, **fixed}


def one_by_one(arguments):
    """What a loop over requests and rows makes of it, without draft probabilities."""
    accepted, token = [], []
    for r in range(len(arguments["temperature"])):
        begin, end = int(arguments["first"][r]), int(arguments["first"][r + 1])
        for row in range(begin, end):
            one = {name: arguments[name][r : r + 1] for name in ("temperature", "top_k", "top_p", "seed")}
            drawn = int(
                sample(
                    arguments["logits"][row : row + 1], **one, position=arguments["position"][r : r + 1] + row - begin
                )
            )
            if row == end - 1 or drawn != int(arguments["draft"][row]):
                break
        accepted.append(row - begin)
        token.append(drawn)
    return accepted, token


def test_without_probabilities_the_tokens_are_those_of_plain_sampling() -> None:
    arguments = requests([0, 4, 3, 1, 5, 2, 3, 0, 4, 4, 2, 1], 40, torch.Generator().manual_seed(1))
    accepted, token = one_by_one(arguments)
    result = verify(**arguments)
    assert result.accepted.tolist() == accepted
    assert result.token.tolist() == token
    assert max(accepted) >= 2


def test_no_requests() -> None:
    result = verify(**requests([], 10, torch.Generator()))
    assert result.accepted.shape == result.token.shape == (0,)


def test_a_mask_forbids_drafts() -> None:
    arguments = requests([2], 40, torch.Generator().manual_seed(1), temperature=torch.zeros(1))
    arguments["draft"] = arguments["logits"].argmax(-1)
    assert verify(**arguments).accepted.tolist() == [2]
    mask = torch.full((3, 2), -1, dtype=torch.int32)
    forbidden = int(arguments["draft"][1])
    mask[1, forbidden // 32] ^= 1 << forbidden % 32
    result = verify(**arguments, bitmask=mask)
    assert result.accepted.tolist() == [1]
    assert int(result.token) != forbidden


def drafted(probabilities, seed, position):
    """Drafts of independent noise."""
    noise = gumbel(seed * 31 + 1_000_003, position, probabilities.shape[1])
    return (probabilities.log() + noise).argmax(-1)


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.6, 4, 1.0), (1.0, 0, 0.8)])
def test_distribution_with_draft_probabilities(temperature, top_k, top_p) -> None:
    """Chi-square of the pair of first two tokens against the target's distribution. Two drafts a request; where fewer
    stand, the missing ones are drawn plainly."""
    vocab, n = 5, 20_000
    generator = torch.Generator().manual_seed(2)
    target = torch.randn(3, vocab, generator=generator)
    q = torch.randn(3, vocab, generator=generator).softmax(-1)
    position = torch.zeros(n, dtype=torch.int64)
    seed = torch.arange(n)
    rows = torch.arange(3 * n)
    draft = drafted(q.repeat(n, 1), seed.repeat_interleave(3), rows % 3)
    column = {"temperature": torch.full((n,), temperature), "top_k": torch.full((n,), top_k)}
    column |= {"top_p": torch.full((n,), top_p)}
    accepted, token = verify(
        target.repeat(n, 1), torch.arange(n + 1) * 3, draft, **column, seed=seed, position=position,
        draft_probabilities=q.repeat(n, 1),
    )  # fmt: skip
    draft = draft.view(n, 3)
    tokens = torch.where(accepted > 0, draft[:, 0], token)
    then = sample(target[1].repeat(n, 1), **column, seed=seed, position=position + 1)
    second = torch.where(accepted > 1, draft[:, 1], torch.where(accepted == 1, token, then))
    observed = torch.bincount(tokens * vocab + second, minlength=vocab * vocab).double()

    def distribution(logits):
        order = logits.argsort(descending=True)
        p = (logits.double() / temperature).softmax(-1)
        keep = order[: top_k or vocab]
        mass = p[keep].cumsum(0) - p[keep]
        keep = keep[mass < top_p * p[keep].sum()] if top_p < 1 else keep
        kept = torch.zeros_like(p)
        kept[keep] = p[keep]
        return kept / kept.sum()

    expected = (distribution(target[0])[:, None] * distribution(target[1])[None]).flatten() * n
    possible = expected > 0
    assert int(observed[~possible].sum()) == 0
    chi_square = float(((observed - expected)[possible] ** 2 / expected[possible]).sum())
    degrees = int(possible.sum()) - 1
    # Wilson and Hilferty's approximation of the 99.9 % quantile
    assert chi_square < degrees * (1 - 2 / (9 * degrees) + 3.09 * (2 / (9 * degrees)) ** 0.5) ** 3
    # Rejection sampling accepts the overlap of the two distributions.
    overlap = float(torch.minimum(distribution(target[0]), q[0].double()).sum())
    assert abs(float((accepted > 0).double().mean()) - overlap) < 0.015


def test_same_distribution_accepts_all() -> None:
    logits = torch.randn(8, 30, generator=torch.Generator().manual_seed(3))
    q = logits.softmax(-1)
    seed, position = torch.arange(2), torch.arange(2)
    draft = drafted(q, torch.arange(8), torch.arange(8))
    result = verify(
        logits, torch.tensor([0, 4, 8]), draft, torch.ones(2), torch.zeros(2, dtype=torch.int64), torch.ones(2),
        seed, position, draft_probabilities=q,
    )  # fmt: skip
    assert result.accepted.tolist() == [3, 3]


@pytest.mark.parametrize("with_probabilities", [False, True])
def test_request_is_the_same_in_any_company(with_probabilities) -> None:
    generator = torch.Generator().manual_seed(4)
    arguments = requests([3, 0, 4, 2, 5, 1], 50, generator)
    if with_probabilities:
        arguments["draft_probabilities"] = torch.randn(arguments["logits"].shape, generator=generator).softmax(-1)
    together = verify(**arguments)
    for r in range(6):
        begin, end = arguments["first"][r : r + 2].tolist()
        alone = {
            name: value[begin:end] if name in ("logits", "draft", "draft_probabilities") else value[r : r + 1]
            for name, value in arguments.items()
        }
        alone["first"] = torch.tensor([0, end - begin])
        result = verify(**alone)
        assert result.accepted.tolist() == together.accepted[r : r + 1].tolist()
        assert result.token.tolist() == together.token[r : r + 1].tolist()
