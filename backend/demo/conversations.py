"""Synthetic conversations: a system prompt of facts and turns of questions and answers.

Knows: how prompts are laid out, which turns a conversation has and what the right answer to each is.
Does not know: tokens, models or losses.
"""

import random
from dataclasses import dataclass

from backend.demo.facts import BY_SUBJECT, Fact, Relation, Subject, ask, confusable, draw_facts, draw_subject, fill
from backend.demo.words import Inventor

ABSENT = "I do not have that information."

_GREETINGS = (
    ("Hello|Hello!|Hi|Hi!|Hi there|Hey|Good morning|Good morning!|Good evening|Good afternoon|Hello there!",
     "Hello! How can I help you?"),
    ("Thanks|Thanks!|Thank you|Thank you!|Thank you very much|Many thanks|Great, thanks!|Thanks a lot!|Perfect, thanks",
     "You are welcome!"),
    ("Who are you?|What are you?|What can you do?|What can I ask you?|Can you help me?|Help|I have a question",
     "I answer questions about this business."),
    ("Bye|Goodbye|Goodbye!|Bye!|See you|See you soon!|Have a nice day!",
     "Goodbye!"),
)  # fmt: skip
# Asked without a day, one line of the prompt would be no answer.
_WHICH_DAY = (
    ("When are you open?", "Are you open?", "What are your opening hours?", "Opening hours?", "When do you open?"),
    "On which day?",
)
_SMALL_TALK = tuple((wordings.split("|"), answer) for wordings, answer in _GREETINGS)

_KINDS = ("bakery", "workshop", "hotel", "museum", "library", "shop", "cafe", "studio", "school", "clinic", "farm")
_INTROS = (
    "You are the assistant of {name}, a {kind}.",
    "You are the assistant of the {kind} {name}.",
    "You answer questions for {name}, a small {kind}.",
    "This is the chat of {name}, a {kind}. You are its assistant.",
)
_RULES = (
    " Answer only from the facts below.",
    " Use only these facts.",
    " If a fact is missing, say so.",
    " Be brief and friendly.",
    " Answer in one sentence.",
    "",
)
_FOLLOW_UPS = {
    Subject.ITEM: ("And the {s}?", "And {a} {s}?", "What about the {s}?", "And for the {s}?"),
    Subject.DAY: ("And on {s}?", "What about {s}?", "And {s}?", "On {s}.", "{s}"),
    Subject.PERSON: ("And {s}?", "What about {s}?"),
    Subject.ROLE: ("And the {s}?", "And who is the {s}?"),
    Subject.PLACE: ("And to {s}?", "What about {s}?"),
}
_BEFORE = ("Hi, ", "Hello, ", "Please tell me: ", "One question: ", "Excuse me, ", "OK. ", "Good morning! ", "And ")
_CONTRACTIONS = (
    ("What is", "What's"),
    ("Where is", "Where's"),
    ("When is", "When's"),
    ("Who is", "Who's"),
    ("I would", "I'd"),
)
_AFTER = (" Thanks!", " Thank you!", " Please.")


@dataclass(frozen=True)
class Turn:
    """A user's message and the only right answer; `category` is what the evaluation groups by."""

    question: str
    answer: str
    category: str


@dataclass(frozen=True)
class Conversation:
    """One business: its prompt, its facts and any number of turns about them."""

    system: str
    facts: tuple[Fact, ...]
    turns: tuple[Turn, ...]


def render_system(facts: list[Fact], inventor: Inventor) -> str:
    """The system prompt: one or two sentences of introduction, then one fact a line."""
    rng = inventor.rng
    intro = rng.choice(_INTROS).format(name=inventor.name(), kind=rng.choice(_KINDS))
    intro += "".join(rng.sample(_RULES, 2))
    separator = rng.choice(("\n", "\n", "\n", "\n", "\n\n", "\n- "))
    return separator.join([intro, *(fact.sentence for fact in facts)])


class Interviewer:
    """Asks about one set of facts; remembers the last question so that it can be followed up."""

    def __init__(self, facts: list[Fact], inventor: Inventor) -> None:
        self._facts = facts
        self._inventor = inventor
        self._rng = inventor.rng
        self._answers = {(fact.relation.name, fact.subject): fact.sentence for fact in facts}
        self._subjects = {fact.subject for fact in facts}
        self._last: tuple[Relation, str] | None = None

    def next_turn(self) -> Turn:
        kind = self._rng.random()
        if kind < 0.06:
            return self._small_talk()
        if kind < 0.08:
            return self._which_day()
        if kind < 0.30 and self._last is not None:
            turn = self._follow_up(*self._last)
            if turn is not None:
                return turn
        if kind > 0.78:
            return self._absent()
        return self._present()

    def _turn(self, question: str, relation: Relation, subject: str, category: str) -> Turn:
        self._last = (relation, subject)
        answer = self._answers.get((relation.name, subject), ABSENT)
        if answer == ABSENT and category == "present":
            category = "absent"
        return Turn(question, answer, category)

    def _small_talk(self) -> Turn:
        wordings, answer = self._rng.choice(_SMALL_TALK)
        self._last = None
        return Turn(self._rng.choice(wordings), answer, "greeting")

    def _which_day(self) -> Turn:
        wordings, answer = _WHICH_DAY
        (hours,) = BY_SUBJECT[Subject.DAY]
        self._last = (hours, "")
        return Turn(vary(self._rng.choice(wordings), self._rng), answer, "clarification")

    def _present(self) -> Turn:
        fact = self._rng.choice(self._facts)
        return self._turn(self._question(fact.relation, fact.subject), fact.relation, fact.subject, "present")

    def _question(self, relation: Relation, subject: str) -> str:
        question = vary(ask(relation, subject, self._rng), self._rng)
        invented = relation.subject in (Subject.PERSON, Subject.PLACE)
        return question if invented or self._rng.random() > 0.06 else question.lower()

    def _absent(self) -> Turn:
        """Half the time an unknown subject, else an unknown relation of a known subject."""
        rng = self._rng
        fact = rng.choice(self._facts)
        kind = fact.relation.subject
        subject = fact.subject
        if kind is not Subject.TOPIC and (rng.random() < 0.5 or len(BY_SUBJECT[kind]) == 1):
            subject = self._unknown(kind)
        relation = rng.choice(BY_SUBJECT[kind])
        return self._turn(self._question(relation, subject), relation, subject, "present")

    def _unknown(self, kind: Subject) -> str:
        for _ in range(20):
            subject = draw_subject(kind, self._inventor)
            if subject not in self._subjects and not (kind is Subject.ITEM and confusable(subject, self._subjects)):
                break
        return subject

    def _follow_up(self, relation: Relation, subject: str) -> Turn | None:
        """Another subject with the same relation, or another relation of the same subject."""
        rng = self._rng
        if relation.subject is Subject.TOPIC:
            return None
        same_subject = [
            r for r in BY_SUBJECT[relation.subject] if r.pronoun_questions and (r.name, subject) in self._answers
        ]
        if relation.pronoun_questions and same_subject and rng.random() < 0.4:
            other = rng.choice(same_subject)
            return self._turn(rng.choice(other.pronoun_questions), other, subject, "follow-up")
        known = [f.subject for f in self._facts if f.relation.name == relation.name and f.subject != subject]
        if not known:
            return None
        subject = rng.choice(known) if rng.random() < 0.85 else self._unknown(relation.subject)
        question = fill(rng.choice(_FOLLOW_UPS[relation.subject]), subject)
        return self._turn(question, relation, subject, "follow-up")


def vary(question: str, rng: random.Random) -> str:
    """Sometimes the small liberties people take: a greeting in front, no capital, no question mark."""
    if rng.random() < 0.15:
        for long, short in _CONTRACTIONS:
            question = question.replace(long, short)
    kind = rng.random()
    if kind < 0.12:
        prefix = rng.choice(_BEFORE)
        keep_capital = prefix.rstrip()[-1] in ".!:" or question.startswith(("I ", "I'd", "Ms", "Mr"))
        return prefix + (question if keep_capital else question[0].lower() + question[1:])
    if kind < 0.17:
        return question + rng.choice(_AFTER)
    if kind < 0.24:
        return question[0].lower() + question[1:]
    if kind < 0.31:
        return question.removesuffix("?").removesuffix(".")
    return question


def make_conversation(fact_count: int, turn_count: int, rng: random.Random, held_out: bool) -> Conversation:
    """A conversation of this size; all of its names and values are on one side of the split."""
    inventor = Inventor(rng, held_out)
    facts = draw_facts(fact_count, inventor)
    system = render_system(facts, inventor)
    interviewer = Interviewer(facts, inventor)
    return Conversation(system, tuple(facts), tuple(interviewer.next_turn() for _ in range(turn_count)))
