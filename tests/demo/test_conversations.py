"""The generator of synthetic conversations: deterministic, honest about its answers, split into two halves."""

import random

import pytest

from backend.demo.conversations import ABSENT, Conversation, make_conversation
from backend.demo.facts import RELATIONS, Subject, ask, confusable, fill
from backend.demo.words import Inventor, is_held_out


def conversations(seed: int, count: int, held_out: bool) -> list[Conversation]:
    rng = random.Random(seed)
    return [make_conversation(rng.randint(4, 50), 15, rng, held_out) for _ in range(count)]


def lines_of(conversation: Conversation) -> list[str]:
    return [line.removeprefix("- ") for line in conversation.system.splitlines() if line]


@pytest.mark.parametrize("held_out", [False, True])
def test_the_same_seed_gives_the_same_conversations(held_out: bool) -> None:
    assert conversations(1, 10, held_out) == conversations(1, 10, held_out)
    assert conversations(1, 10, held_out) != conversations(2, 10, held_out)


@pytest.mark.parametrize("held_out", [False, True])
def test_answers_stand_literally_in_the_prompt(held_out: bool) -> None:
    for conversation in conversations(3, 100, held_out):
        for turn in conversation.turns:
            if turn.category in ("greeting", "clarification") or turn.answer == ABSENT:
                assert turn.answer not in conversation.system
            else:
                assert turn.answer in lines_of(conversation)


def test_every_fact_is_a_line_and_begins_differently_from_the_others() -> None:
    for conversation in conversations(4, 100, held_out=False):
        assert lines_of(conversation)[1:] == [fact.sentence for fact in conversation.facts]
        assert len({(fact.relation.name, fact.subject) for fact in conversation.facts}) == len(conversation.facts)


def invented_names(conversation: Conversation) -> set[str]:
    """Names of subjects that come from the open classes."""
    open_classes = (Subject.ITEM, Subject.PERSON, Subject.PLACE)
    return {fact.subject for fact in conversation.facts if fact.relation.subject in open_classes}


def test_held_out_names_never_occur_in_training() -> None:
    training = set().union(*(invented_names(c) for c in conversations(5, 150, held_out=False)))
    held_out = set().union(*(invented_names(c) for c in conversations(6, 150, held_out=True)))
    assert len(training) > 500 and len(held_out) > 500
    assert not training & held_out


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.name)
def test_values_are_split(relation) -> None:
    halves = [{relation.value(Inventor(random.Random(7), side)) for _ in range(200)} for side in (False, True)]
    assert not halves[0] & halves[1]


def test_the_split_depends_on_the_text_alone() -> None:
    assert is_held_out("4.20 euros") == is_held_out("4.20 euros")
    shares = [is_held_out(str(n)) for n in range(4_000)]
    assert 0.08 < sum(shares) / len(shares) < 0.17


def test_questions_name_their_subject() -> None:
    rng = random.Random(8)
    for relation in RELATIONS:
        if relation.subject is not Subject.TOPIC:
            for _ in range(50):
                assert "Xylo" in ask(relation, "Xylo", rng)


def test_articles() -> None:
    assert fill("How much is {a} {s}?", "apple tart") == "How much is an apple tart?"
    assert fill("How much is {a} {s}?", "rye loaf") == "How much is a rye loaf?"


def test_plurals() -> None:
    assert fill("How much are {p}?", "croissant") == "How much are croissants?"
    assert fill("How much are {p}?", "brush") == "How much are brushes?"


def test_names_that_contain_each_other_are_confusable() -> None:
    assert confusable("croissant", {"almond croissant"})
    assert confusable("almond croissant", {"croissant"})
    assert not confusable("almond croissant", {"almond tart", "plain croissant"})
