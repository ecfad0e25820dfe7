"""What a synthetic business can state about itself, and how people ask for it.

Knows: the relations (price, opening hours, ...), the wordings of their facts and questions, and how to draw a set
of facts for one business. Does not know: turns, prompts or tokens.

A fact is one sentence that begins with what it is about, and the sentence is the answer, word for word. So the model
can find a line by the words of the question and copy it; a small model learns exactly this, and little else.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from backend.demo.words import DAYS, HOLIDAYS, ROLES, Inventor


class Subject(Enum):
    """What a relation speaks about. Topics have no name of their own: 'our address'."""

    ITEM = "item"
    DAY = "day"
    PERSON = "person"
    ROLE = "role"
    PLACE = "place"
    TOPIC = "topic"


@dataclass(frozen=True)
class Relation:
    """One thing that can be known about a kind of subject.

    Placeholders: {s} the subject, {p} its plural, {a} its indefinite article, {v} the value.
    """

    name: str
    subject: Subject
    facts: tuple[str, ...]
    questions: tuple[str, ...]
    value: Callable[[Inventor], str]
    pronoun_questions: tuple[str, ...] = ()  # asked about the subject of the turn before


@dataclass(frozen=True)
class Fact:
    """`sentence` is both the line of the system prompt and the answer."""

    relation: Relation
    subject: str
    sentence: str


def _topic(name: str, facts: str, questions: str, value: Callable[[Inventor], str]) -> Relation:
    return Relation(name, Subject.TOPIC, tuple(facts.split("|")), tuple(questions.split("|")), value)


ITEM_RELATIONS = (
    Relation(
        "price",
        Subject.ITEM,
        ("The {s} costs {v}.", "The {s} is {v}."),
        (
            "How much is the {s}?",
            "How much is {a} {s}?",
            "What does the {s} cost?",
            "What does {a} {s} cost?",
            "How much does the {s} cost?",
            "How much does {a} {s} cost?",
            "What is the price of the {s}?",
            "What is the price of {a} {s}?",
            "What do you charge for {a} {s}?",
            "How much do you charge for the {s}?",
            "How much must I pay for the {s}?",
            "How expensive is the {s}?",
            "Price of the {s}?",
            "price of {a} {s}?",
            "Tell me the price of the {s}.",
            "How much for {a} {s}?",
            "How much are {p}?",
            "How much are the {p}?",
            "What do {p} cost?",
            "Do you have {p}?",
            "Do you sell {p}?",
            "I would like to know the price of {a} {s}.",
        ),
        Inventor.price,
        ("How much is it?", "What does it cost?", "And how much is it?", "And what does it cost?", "And the price?"),
    ),
    Relation(
        "contents",
        Subject.ITEM,
        ("The {s} contains {v}.", "The {s} includes {v}."),
        (
            "What is in the {s}?",
            "What is in {a} {s}?",
            "What does the {s} contain?",
            "What does {a} {s} contain?",
            "What does the {s} include?",
            "What is included in the {s}?",
            "What is the {s} made of?",
            "Which ingredients are in the {s}?",
            "What comes with the {s}?",
        ),
        Inventor.contents,
        ("What is in it?", "And what is in it?", "What does it contain?", "And what does it include?"),
    ),
    Relation(
        "availability",
        Subject.ITEM,
        ("The {s} comes {v}.",),
        (
            "When is the {s} available?",
            "When is {a} {s} available?",
            "When can I get the {s}?",
            "When can I get {a} {s}?",
            "When do you have the {s}?",
            "When do you offer the {s}?",
            "At what times is the {s} available?",
        ),
        Inventor.availability,
        ("When is it available?", "And when can I get it?", "And when is it available?"),
    ),
    Relation(
        "place",
        Subject.ITEM,
        ("The {s} stands {v}.",),
        (
            "Where is the {s}?",
            "Where can I find the {s}?",
            "Where do I find the {s}?",
            "Where does the {s} stand?",
            "Where can I see the {s}?",
            "How do I find the {s}?",
        ),
        Inventor.spot,
        ("Where is it?", "And where is it?", "Where can I find it?"),
    ),
    Relation(
        "duration",
        Subject.ITEM,
        ("The {s} takes {v}.", "The {s} lasts {v}."),
        (
            "How long does the {s} take?",
            "How long does {a} {s} take?",
            "How long is the {s}?",
            "How long does the {s} last?",
            "How much time does the {s} take?",
            "What is the duration of the {s}?",
        ),
        Inventor.span,
        ("How long does it take?", "And how long does it take?", "How long does it last?"),
    ),
    Relation(
        "capacity",
        Subject.ITEM,
        ("The {s} holds {v}.",),
        (
            "How many people fit in the {s}?",
            "How many people can use the {s}?",
            "For how many people is the {s}?",
            "How big is the {s}?",
            "How many people does the {s} hold?",
        ),
        Inventor.people,
        ("For how many people is it?", "How many people fit in it?"),
    ),
)

DAY_RELATIONS = (
    Relation(
        "hours",
        Subject.DAY,
        ("On {s} {v}.",),
        (
            "When are you open on {s}?",
            "Are you open on {s}?",
            "What are your opening hours on {s}?",
            "What are the opening hours on {s}?",
            "At what time do you open on {s}?",
            "What time do you open on {s}?",
            "When do you open on {s}?",
            "When do you close on {s}?",
            "Until when are you open on {s}?",
            "How long are you open on {s}?",
            "Opening hours on {s}?",
            "Can I come on {s}?",
        ),
        Inventor.opening_hours,
    ),
)
CLOSED = "On {s} closed."

PERSON_RELATIONS = (
    Relation(
        "working days",
        Subject.PERSON,
        ("{s} works {v}.",),
        ("When does {s} work?", "On which days does {s} work?", "When is {s} there?", "When can I meet {s}?"),
        Inventor.working_day,
    ),
    Relation(
        "languages",
        Subject.PERSON,
        ("{s} speaks {v}.",),
        ("Which languages does {s} speak?", "What languages does {s} speak?", "What does {s} speak?"),
        Inventor.language,
    ),
    Relation(
        "extension",
        Subject.PERSON,
        ("{s}: {v}.",),
        ("How can I reach {s}?", "What is the phone number of {s}?", "At what number can I call {s}?"),
        Inventor.phone,
    ),
)

ROLE_RELATIONS = (
    Relation(
        "role",
        Subject.ROLE,
        ("The {s} is {v}.",),
        ("Who is the {s}?", "Who is your {s}?", "What is the name of the {s}?", "What is the {s} called?"),
        Inventor.full_name,
    ),
)

PLACE_RELATIONS = (
    Relation(
        "delivery price",
        Subject.PLACE,
        ("Delivery to {s} costs {v}.",),
        (
            "How much is delivery to {s}?",
            "What does delivery to {s} cost?",
            "How much does delivery to {s} cost?",
            "What do you charge for delivery to {s}?",
        ),
        Inventor.price,
    ),
    Relation(
        "delivery time",
        Subject.PLACE,
        ("Delivery to {s} takes {v}.",),
        ("How long does delivery to {s} take?", "How fast is delivery to {s}?", "How long is delivery to {s}?"),
        Inventor.span,
    ),
)

TOPICS = (
    _topic(
        "phone",
        "Our phone number is {v}.|Our telephone number is {v}.",
        "What is your phone number?|Your phone number?|How can I call you?|At what number can I call you?"
        "|What is your telephone number?|Do you have a phone number?",
        Inventor.phone,
    ),
    _topic(
        "email",
        "Our email is {v}.",
        "What is your email address?|Your email address?|Where can I send an email?|How can I email you?",
        Inventor.email,
    ),
    _topic(
        "website",
        "Our website is {v}.",
        "What is your website?|Do you have a website?|Where can I find you online?",
        Inventor.website,
    ),
    _topic(
        "address",
        "Our address is {v}.|Our house stands at {v}.",
        "What is your address?|Where are you?|Where can I find you?|Your address?|How do I find you?",
        Inventor.street_address,
    ),
    _topic(
        "founding",
        "Our business was founded in {v}.|Our house opened in {v}.",
        "When were you founded?|How old is the business?|When was your business founded?|Since when do you exist?",
        Inventor.year,
    ),
    _topic(
        "wifi",
        "The wifi password is {v}.",
        "What is the wifi password?|Do you have wifi?|Is there wifi?|How do I use the wifi?",
        Inventor.password,
    ),
    _topic(
        "dogs",
        "Dogs are allowed {v}.|Dogs are welcome {v}.",
        "Are dogs allowed?|Can I bring my dog?|May I bring a dog?|Are dogs welcome?",
        Inventor.spot,
    ),
    _topic(
        "smoking",
        "Smoking is allowed {v}.",
        "Is smoking allowed?|Where can I smoke?|May I smoke?",
        Inventor.spot,
    ),
    _topic(
        "parking",
        "Parking is free {v}.",
        "Where can I park?|Is there parking?|Can I park my car?|Do you have a car park?",
        Inventor.spot,
    ),
    _topic(
        "toilets",
        "Toilets are {v}.",
        "Where are the toilets?|Is there a toilet?|Do you have toilets?",
        Inventor.spot,
    ),
    _topic(
        "cards",
        "Card payment is possible above {v}.",
        "Can I pay by card?|Do you take cards?|Is card payment possible?",
        Inventor.price,
    ),
    _topic(
        "vouchers",
        "Gift vouchers expire after {v}.",
        "How long are gift vouchers valid?|Are there gift vouchers?|Do you have gift vouchers?",
        Inventor.span,
    ),
    _topic(
        "returns",
        "Returns are accepted within {v}.",
        "Can I return something?|How long can I return things?|Are returns possible?",
        Inventor.span,
    ),
    _topic(
        "cancellation",
        "Cancellation is free up to {v} ahead.|Cancellation is possible up to {v} ahead.",
        "Can I cancel?|How late can I cancel?|Until when is cancellation free?",
        Inventor.span,
    ),
    _topic(
        "groups",
        "Group discounts start at {v}.",
        "Are there group discounts?|Do you have a discount for groups?|When do group discounts start?",
        Inventor.people,
    ),
    _topic(
        "wheelchairs",
        "Wheelchair access is {v}.",
        "Is there wheelchair access?|Where is the wheelchair access?|Can I come in a wheelchair?",
        Inventor.spot,
    ),
    _topic(
        "breakfast hours",
        "Breakfast is served at {v}.",
        "When are the breakfast hours?|When is breakfast served?|At what time is breakfast?",
        Inventor.time,
    ),
    _topic(
        "check-in",
        "Check-in begins at {v}.",
        "When is check-in?|When can I check in?|At what time does check-in start?",
        Inventor.time,
    ),
    _topic(
        "check-out",
        "Check-out ends at {v}.",
        "When is check-out?|When must I check out?|Until when is check-out possible?",
        Inventor.time,
    ),
    _topic(
        "children",
        "Children pay {v}.",
        "What do children pay?|How much is it for children?|What is the price for children?",
        Inventor.price,
    ),
    _topic(
        "students",
        "Students pay {v}.",
        "What do students pay?|How much is it for students?|Is there a student price?",
        Inventor.price,
    ),
    _topic(
        "lost things",
        "Lost property is kept {v}.",
        "I have lost something.|Where is the lost property?|Where are lost things kept?",
        Inventor.spot,
    ),
    _topic(
        "next bus",
        "The bus stops {v}.",
        "Where does the bus stop?|Is there a bus?|Where is the bus?",
        Inventor.spot,
    ),
    _topic(
        "orders",
        "Orders must be placed {v} ahead.|Orders need {v}.",
        "How do I order?|When must I place an order?|How long do orders take?",
        Inventor.span,
    ),
)

RELATIONS = ITEM_RELATIONS + DAY_RELATIONS + PERSON_RELATIONS + ROLE_RELATIONS + PLACE_RELATIONS + TOPICS
BY_SUBJECT = {subject: tuple(r for r in RELATIONS if r.subject is subject) for subject in Subject}

# How often a group of facts about one subject of this kind is drawn for a business.
_WEIGHTS = {
    Subject.ITEM: 10,
    Subject.DAY: 4,
    Subject.PERSON: 3,
    Subject.ROLE: 2,
    Subject.PLACE: 2,
    Subject.TOPIC: 5,
}


def article(noun: str) -> str:
    """'a' or 'an', by the first letter."""
    return "an" if noun[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """The regular plural."""
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


def fill(template: str, subject: str, value: str = "") -> str:
    """The template with its placeholders replaced."""
    text = template
    if subject:
        text = text.replace("{a}", article(subject)).replace("{p}", plural(subject))
    return text.replace("{s}", subject).replace("{v}", value)


def draw_subject(kind: Subject, inventor: Inventor) -> str:
    """A name for a subject of this kind; '' for topics."""
    if kind is Subject.ITEM:
        return inventor.item()
    if kind is Subject.DAY:
        return inventor.rng.choice(DAYS if inventor.rng.random() < 0.8 else HOLIDAYS)
    if kind is Subject.PERSON:
        return inventor.person()
    if kind is Subject.ROLE:
        return inventor.rng.choice(ROLES)
    if kind is Subject.PLACE:
        return inventor.name()
    return ""


def draw_fact(relation: Relation, subject: str, inventor: Inventor) -> Fact:
    """A fact of this relation in one of its wordings, with a new value."""
    rng = inventor.rng
    if relation.name == "hours" and rng.random() < 0.15:
        return Fact(relation, subject, fill(CLOSED, subject))
    return Fact(relation, subject, fill(rng.choice(relation.facts), subject, relation.value(inventor)))


def confusable(subject: str, others: set[str]) -> bool:
    """True if one name consists of words of the other, as in 'croissant' and 'almond croissant'."""
    words = set(subject.split())
    return any(words <= set(other.split()) or set(other.split()) <= words for other in others)


def draw_facts(count: int, inventor: Inventor) -> list[Fact]:
    """`count` facts about one business, in random order; no two answer the same question."""
    rng = inventor.rng
    facts: list[Fact] = []
    taken: set[tuple[str, str]] = set()
    items: set[str] = set()
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    while len(facts) < count:
        (kind,) = rng.choices(kinds, weights)
        subject = draw_subject(kind, inventor)
        if kind is Subject.ITEM and confusable(subject, items):
            continue
        relations = BY_SUBJECT[kind]
        most = 3 if kind is Subject.ITEM else 2 if kind in (Subject.PERSON, Subject.PLACE) else 1
        for relation in rng.sample(relations, min(rng.randint(1, most), len(relations))):
            if (relation.name, subject) in taken:
                continue
            taken.add((relation.name, subject))
            facts.append(draw_fact(relation, subject, inventor))
        if kind is Subject.ITEM:
            items.add(subject)
    rng.shuffle(facts)
    return facts[:count]


def ask(fact_relation: Relation, subject: str, rng: random.Random) -> str:
    """A question for this relation of this subject."""
    return fill(rng.choice(fact_relation.questions), subject)
