"""The seeded multi-tenant chat workload: who says what, how long, and when. Pure: no clock, no network, no tokenizer.

Lengths are drawn in tokens and written in words; ``tokens_per_word`` says how many tokens the server's tokenizer makes
of one of our words. So lengths are approximate, and what really was sent is counted from the server's usage.
"""

import random

import msgspec


class Shape(msgspec.Struct, frozen=True):
    """What is drawn. Lengths in tokens; ``rate`` in conversations per second (Poisson), 0: ``concurrency`` at a time.

    User messages and answers are lognormal around their median (``sigma`` of the logarithm), cut to their bounds.
    ``seed`` decides lengths, tenants and arrivals; ``text_seed`` the words alone: another one is the same work with
    text that is new to a cache.
    """

    tenants: int = 4
    system_tokens: int = 1024
    conversations: int = 24
    turns: int = 2
    user_median: float = 50
    user_sigma: float = 0.5
    user_min: int = 20
    user_max: int = 120
    output_median: float = 48
    output_sigma: float = 0.9
    output_min: int = 8
    output_max: int = 384
    rate: float = 0.0
    concurrency: int = 16
    seed: int = 1
    text_seed: int = 1
    tokens_per_word: float = 1.0


class Turn(msgspec.Struct, frozen=True):
    """One message of the user, and the most tokens of the answer to it."""

    user: str
    max_tokens: int


class Conversation(msgspec.Struct, frozen=True):
    """Turns that follow each other. ``arrival_s``: seconds after the start of the run; 0 for all without a rate."""

    id: int
    tenant: int
    system: str
    turns: tuple[Turn, ...]
    arrival_s: float = 0.0


_TEXT = (
    "able about above account across action active after again air all alone along also amount animal answer any "
    "area arm art ask away baby back bad bag ball bank base bear beat bed before begin below best better big bird "
    "black blood blue board boat body book born both box boy bread break bring brother build bus business buy "
    "call car care carry case cat catch center change child choose church city class clean clear close cloud coat "
    "cold color come common cook cool copy corner cost count country course cover cross cup cut dark day deal "
    "dear deep desk die dinner dog door double down draw dream dress drink drive drop dry each early earth east "
    "easy eat edge egg eight end engine enough even evening ever every eye face fact fair fall family far farm "
    "fast father feel few field fill find fine finger fire first fish five floor fly follow food foot force "
    "forest form forward four free friend front fruit full game garden gas get girl give glass go gold good great "
    "green ground group grow guess hair half hall hand happy hard hat have head hear heart heat heavy help here "
    "high hill hold home hope horse hot hour house how idea ice inside iron island job join jump just keep key "
    "kind king know "
)
WORDS = _TEXT.split()


def draw_length(rng: random.Random, median: float, sigma: float, least: int, most: int) -> int:
    """A lognormal length around ``median``, cut to ``least``..``most``."""
    return int(min(most, max(least, round(median * rng.lognormvariate(0.0, sigma)))))


def draw_text(rng: random.Random, tokens: int, tokens_per_word: float) -> str:
    """Words that make about ``tokens`` tokens; at least one word."""
    return " ".join(rng.choices(WORDS, k=max(1, round(tokens / tokens_per_word))))


def generate(shape: Shape) -> list[Conversation]:
    """The conversations in order of arrival; the same shape always gives the same list."""
    lengths = random.Random(f"lengths {shape.seed}")
    words = random.Random(f"words {shape.seed} {shape.text_seed}")
    systems = [draw_text(words, shape.system_tokens, shape.tokens_per_word) for _ in range(shape.tenants)]
    arrival, conversations = 0.0, []
    for number in range(shape.conversations):
        if shape.rate > 0:
            arrival += lengths.expovariate(shape.rate)
        tenant = lengths.randrange(shape.tenants)
        turns = tuple(_draw_turn(lengths, words, shape) for _ in range(shape.turns))
        conversations.append(Conversation(number, tenant, systems[tenant], turns, arrival))
    return conversations


def _draw_turn(lengths: random.Random, words: random.Random, shape: Shape) -> Turn:
    user = draw_length(lengths, shape.user_median, shape.user_sigma, shape.user_min, shape.user_max)
    answer = draw_length(lengths, shape.output_median, shape.output_sigma, shape.output_min, shape.output_max)
    return Turn(draw_text(words, user, shape.tokens_per_word), answer)
