"""Measures how many answers of the demo model are exactly right.

Knows: what is asked, greedy decoding, and how the figures are grouped. Does not know: how the model was trained.

The conversations are of the product's kind: a system prompt of 300 to 1,000 tokens and a few turns, in which the
model sees its own earlier answers. All invented names and values are held out of training. An answer counts if it is
the expected string, character for character.

    python -m backend.demo.evaluate                        the bundled model; writes evaluation.json and README.md
    python -m backend.demo.evaluate --model DIR --wrong 20   another one, and shows what it gets wrong
"""

import argparse
import json
import os
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from backend.demo.businesses import Business, load_businesses
from backend.demo.conversations import Conversation, Turn, make_conversation
from backend.demo.model import DemoLlama, Past, load_model
from backend.demo.tokenizer import MODEL_DIR, ChatEncoder

PROMPT_TOKENS = (300, 1_000)
PROMPT_BUCKETS = ((300, 500), (500, 700), (700, 1_001))
TURNS = 5
MOST_ANSWER_TOKENS = 64
README = Path(__file__).parent / "README.md"
MARKS = ("<!-- figures of the last evaluation: begin -->", "<!-- end -->")


@dataclass(frozen=True)
class Outcome:
    """One question, what should have come and what came."""

    category: str
    prompt_tokens: int
    turn: int
    question: str
    expected: str
    answer: str

    @property
    def right(self) -> bool:
        return self.answer == self.expected


class Chat:
    """A conversation with the model, decoded greedily in plain torch."""

    def __init__(self, model: DemoLlama, encoder: ChatEncoder, system: str) -> None:
        self._model = model
        self._encoder = encoder
        self._past = Past()
        self._unread = encoder.message("system", system)
        self.prompt_tokens = len(self._unread)

    @torch.no_grad()
    def ask(self, question: str) -> str:
        """The model's answer, which from now on is part of the conversation."""
        self._unread += self._encoder.message("user", question) + self._encoder.answer_start()
        answer: list[int] = []
        while len(answer) < MOST_ANSWER_TOKENS:
            hidden = self._model.hidden(torch.tensor([self._unread]), self._past)
            token = int(self._model.logits(hidden[0, -1]).argmax())
            self._unread = [token]
            if token == self._encoder.end:
                break
            answer.append(token)
        else:
            self._unread = [self._encoder.end]
        self._unread += self._encoder.text("\n")
        return self._encoder.decode(answer)


def held_out_conversations(count: int, encoder: ChatEncoder, seed: int) -> Iterator[Conversation]:
    """Conversations over held-out names and values, with system prompts of PROMPT_TOKENS."""
    rng = random.Random(seed)
    low, high = PROMPT_TOKENS
    while count:
        conversation = make_conversation(rng.randint(14, 70), TURNS, rng, held_out=True)
        if low <= len(encoder.message("system", conversation.system)) <= high:
            count -= 1
            yield conversation


def play(model: DemoLlama, encoder: ChatEncoder, system: str, turns: tuple[Turn, ...]) -> Iterator[Outcome]:
    """Asks all of the questions in one conversation."""
    chat = Chat(model, encoder, system)
    for number, turn in enumerate(turns, start=1):
        answer = chat.ask(turn.question)
        yield Outcome(turn.category, chat.prompt_tokens, number, turn.question, turn.answer, answer)


def play_business(model: DemoLlama, encoder: ChatEncoder, business: Business) -> Iterator[Outcome]:
    """Asks each sample question as the first, second and third turn of a conversation."""
    samples = business.sample_questions
    for start in range(len(samples)):
        turns = tuple(
            Turn(sample.question, sample.answer, business.id)
            for sample in (samples[(start + step) % len(samples)] for step in range(3))
        )
        yield from play(model, encoder, business.system_prompt, turns)


def share(outcomes: list[Outcome]) -> dict[str, Any]:
    """Counts and the share of right answers."""
    right = sum(outcome.right for outcome in outcomes)
    return {"answers": len(outcomes), "right": right, "share": round(right / max(len(outcomes), 1), 4)}


def summarise(outcomes: list[Outcome]) -> dict[str, Any]:
    """Shares for all, by category, by prompt length and by turn."""
    by_category = defaultdict(list)
    by_length = defaultdict(list)
    by_turn = defaultdict(list)
    for outcome in outcomes:
        by_category[outcome.category].append(outcome)
        by_turn[f"turn {outcome.turn}"].append(outcome)
        for low, high in PROMPT_BUCKETS:
            if low <= outcome.prompt_tokens < high:
                by_length[f"{low} to {high - 1} tokens"].append(outcome)
    return {
        "all": share(outcomes),
        "by_category": {name: share(group) for name, group in sorted(by_category.items())},
        "by_prompt_length": {name: share(group) for name, group in sorted(by_length.items())},
        "by_turn": {name: share(group) for name, group in sorted(by_turn.items())},
    }


def figures(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    rows = ["| | answers | exactly right |", "|---|---:|---:|"]

    def add(label: str, counts: dict[str, Any]) -> None:
        rows.append(f"| {label} | {counts['answers']:,} | {counts['share']:.1%} |")

    held_out = report["held_out"]
    add("**held-out conversations**", held_out["all"])
    for group in ("by_category", "by_prompt_length", "by_turn"):
        for label, counts in held_out[group].items():
            add(label, counts)
    add("**sample questions of the bundled businesses**", report["businesses"]["all"])
    return "\n".join(rows)


def update_readme(report: dict[str, Any], readme: Path = README) -> None:
    """Puts the figures between the two marks in the README."""
    head, _, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    readme.write_text(f"{head}{MARKS[0]}\n{figures(report)}\n{MARKS[1]}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL_DIR)
    parser.add_argument("--conversations", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    encoder = ChatEncoder.load()
    model = load_model(args.model, getattr(torch, args.dtype))
    begin = time.monotonic()
    outcomes: list[Outcome] = []
    for conversation in held_out_conversations(args.conversations, encoder, args.seed):
        outcomes += play(model, encoder, conversation.system, conversation.turns)
    samples = [outcome for b in load_businesses() for outcome in play_business(model, encoder, b)]
    report = {
        "conversations": args.conversations,
        "seed": args.seed,
        "dtype": args.dtype,
        "seconds": round(time.monotonic() - begin, 1),
        "held_out": summarise(outcomes),
        "businesses": summarise(samples),
    }
    text = json.dumps(report, indent=2)
    print(text)
    for outcome in [o for o in outcomes + samples if not o.right][: args.wrong]:
        print(f"{outcome.category}, {outcome.prompt_tokens} tokens, turn {outcome.turn}: {outcome.question}")
        print(f"    expected {outcome.expected}\n    answered {outcome.answer}")
    (args.model / "evaluation.json").write_text(text + "\n")
    if args.model == MODEL_DIR:
        update_readme(report)


if __name__ == "__main__":
    main()
