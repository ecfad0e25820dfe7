"""The stages of training, and the batches of each.

Knows: how long and how full the prompts of each stage are, and how to fill a batch. Does not know: models, optimizers.

A model that starts with full prompts learns nothing in any time we have: it must first learn to copy (random tokens
that repeat), then to find one line of few, and then of many.
"""

import random
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from backend.demo.conversations import make_conversation
from backend.demo.tokenizer import SPECIAL_TOKENS, ChatEncoder


class Batch(NamedTuple):
    tokens: Tensor  # [rows, length]
    targets: Tensor  # [rows, length], the next token where the loss counts it, else -1


@dataclass(frozen=True)
class Stage:
    """`facts` None means: no conversations, only random tokens that repeat."""

    facts: tuple[int, int] | None
    length: int
    rows: int


STAGES = (
    Stage(None, 128, 16),
    Stage((2, 4), 256, 16),
    Stage((4, 8), 384, 12),
    Stage((8, 16), 512, 12),
    Stage((16, 32), 768, 10),
    Stage((20, 64), 1_280, 7),
)


def _repeats(stage: Stage, vocabulary: int, rng: random.Random) -> tuple[list[int], list[bool]]:
    """A random passage again and again; counted from its second time on."""
    passage = [rng.randrange(len(SPECIAL_TOKENS), vocabulary) for _ in range(rng.randint(8, stage.length // 2))]
    times = stage.length // len(passage) + 2
    return passage * times, [False] * len(passage) + [True] * len(passage) * (times - 1)


def _conversation(
    stage: Stage, encoder: ChatEncoder, rng: random.Random, held_out: bool
) -> tuple[list[int], list[bool]]:
    assert stage.facts is not None
    count = rng.randint(*stage.facts)
    while True:
        conversation = make_conversation(count, stage.length // 12, rng, held_out)
        tokens, is_answer = encoder.conversation(conversation, stage.length + 1)
        if any(is_answer):
            return tokens, is_answer


def make_batch(stage: Stage, encoder: ChatEncoder, rng: random.Random, held_out: bool = False) -> Batch:
    """One batch of this stage, from one side of the split of names and values."""
    tokens = torch.zeros(stage.rows, stage.length + 1, dtype=torch.long)
    counted = torch.zeros(stage.rows, stage.length + 1, dtype=torch.bool)
    for row in range(stage.rows):
        if stage.facts is None:
            ids, is_answer = _repeats(stage, encoder.vocabulary_tokens, rng)
        else:
            ids, is_answer = _conversation(stage, encoder, rng, held_out)
        used = min(len(ids), stage.length + 1)
        tokens[row, :used] = torch.tensor(ids[:used])
        counted[row, :used] = torch.tensor(is_answer[:used])
    return Batch(tokens[:, :-1], tokens[:, 1:].masked_fill(~counted[:, 1:], -1))
