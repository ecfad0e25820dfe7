"""Words, invented names and values that the synthetic businesses are made of.

Knows: word lists, how to invent a name or a value, and which of them are held out of training.
Does not know: sentences, questions or tokens.

Every name and value is split by a hash of its text (`is_held_out`), so that the evaluation can ask about
strings that never occurred in training, whatever the seed.
"""

import random
import zlib
from collections.abc import Callable

HELD_OUT_ONE_IN = 8


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
PARTS_OF_DAYS = ("mornings", "afternoons", "evenings", "nights")
HOLIDAYS = ("Christmas Eve", "Boxing Day", "Easter Monday", "New Year's Eve", "Good Friday", "Labour Day")
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

ITEM_NOUNS = _words(
    """
    croissant baguette loaf roll pretzel muffin scone brioche tart cake pie bun bagel brownie waffle pancake cookie
    biscuit strudel donut eclair sandwich toast salad soup stew omelette platter breakfast brunch lunch dinner menu
    coffee espresso cappuccino latte tea chocolate juice lemonade smoothie cider wine beer cocktail syrup jam honey
    cheese butter yoghurt ham sausage pickle mustard sauce pasta risotto pizza burger curry salmon trout
    bicycle tandem tricycle scooter trailer helmet saddle pump lock lamp bell basket tyre tube chain pedal brake wheel
    handlebar fender rack bottle glove jacket jersey map toolkit spoke fork frame battery charger
    repair inspection tuning cleaning service rental lesson course workshop tour ride excursion
    room suite cabin apartment dormitory studio attic cottage tent sauna pool spa gym terrace garden library lounge
    bar restaurant hall theatre chapel cellar gallery exhibition collection portrait statue vase clock globe tapestry
    telescope compass meteorite fossil skeleton mask coin lantern anchor painting sculpture manuscript armour crown
    ticket pass voucher membership card audioguide brochure catalogue poster postcard mug notebook pencil
    book novel atlas dictionary magazine newspaper comic record film puzzle game chessboard kite doll drum
    guitar violin piano flute trumpet ukulele haircut shave massage manicure facial bouquet rose tulip orchid cactus
    fern wreath shovel rake hose ladder hammer drill saw bucket brush candle pillow blanket towel curtain carpet
    table chair sofa desk shelf mirror kettle pan knife bowl plate glass teapot camera tripod printer keyboard
    laptop phone watch ring necklace bracelet scarf hat coat shirt dress skirt belt boot sandal sneaker umbrella
    backpack suitcase wallet kayak canoe surfboard sledge snowboard tent raft paddle cruise ferry shuttle taxi
    """
)
MODIFIERS = _words(
    """
    almond apple cherry lemon walnut pumpkin rye wheat oat barley sesame poppy plain sweet salted spicy smoked dark
    white red green blue black golden silver grey purple small large big mini family children's guided private
    electric folding mountain city touring racing vintage modern classic royal rustic country garden harbour island
    morning evening weekend summer winter spring autumn full quick basic premium deluxe single double twin quiet
    sunny corner upper lower northern southern old new wooden copper iron glass ceramic leather woollen cotton
    homemade organic vegan roasted frozen fresh hot cold grand little annual monthly daily student senior group
    """
)
INGREDIENTS = _words(
    """
    butter flour sugar salt yeast milk eggs cream honey almonds walnuts hazelnuts raisins cinnamon vanilla cocoa
    apples pears cherries plums lemons oranges bananas berries rhubarb pumpkin carrots onions garlic tomatoes spinach
    potatoes beans lentils rice oats rye spelt barley sesame olives mushrooms cheese bacon ham chicken beef fish
    tofu parsley basil mint thyme pepper ginger chilli mustard vinegar oil soap wax cotton wool linen leather steel
    rubber brass copper oak pine glass paper ink clay sand towels slippers sheets maps tools gloves
    """
)
ROLES = _words(
    """
    owner manager baker cook chef mechanic receptionist librarian curator gardener cleaner accountant director
    teacher trainer guide driver cashier waiter barista apprentice founder caretaker archivist secretary porter
    carpenter painter nurse pianist
    """
)
LANGUAGES = (
    "English", "French", "German", "Spanish", "Italian", "Polish", "Dutch", "Danish", "Czech", "Turkish",
    "Greek", "Arabic", "Hindi", "Korean", "Japanese", "Finnish", "Swedish", "Welsh", "Basque",
)  # fmt: skip
SPOTS = _phrases(
    """
    door|entrance|window|counter|till|stairs|lift|garden gate|main hall|courtyard|car park|fireplace|kitchen|reception
    |cloakroom|fountain|bookcase|bar|terrace|reading room|storeroom|workbench|side entrance|bridge|chapel|old tower
    |ticket desk|bus stop|bench|pond
    """
)
STREET_KINDS = ("Street", "Road", "Lane", "Square", "Avenue", "Alley", "Hill", "Quay")

_ONSETS = _words("b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr kl kn pl pr sh sk sl sn st th tr")
_VOWELS = _words("a e i o u a e i o ai ea ee ie oa oo ou y")
_CODAS = ("", "", "", "l", "n", "r", "s", "m", "t", "nd", "rn", "st", "ck", "x", "ld", "sk", "v")


def is_held_out(text: str) -> bool:
    """True if this name or value is kept for the evaluation. Depends on the text alone."""
    return zlib.crc32(text.encode()) % HELD_OUT_ONE_IN == 0


class Inventor:
    """Draws names and values that belong all to training or all to the held-out part."""

    def __init__(self, rng: random.Random, held_out: bool) -> None:
        self.rng = rng
        self.held_out = held_out
        self._openings: set[int] = set()

    def draw(self, make: Callable[[], str]) -> str:
        """The first of `make`'s strings on our side of the split."""
        for _ in range(10_000):
            text = make()
            if is_held_out(text) == self.held_out:
                return text
        raise ValueError("make() yields no string on this side of the split")

    # -- names --

    def _word(self) -> str:
        rng = self.rng
        syllables = 2 if rng.random() < 0.7 else 3
        stem = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables))
        return stem + rng.choice(_CODAS)

    def name(self) -> str:
        """An invented proper name such as 'Brolind'."""
        return self.draw(lambda: self._word().capitalize())

    def item(self) -> str:
        """One to two words, real or invented: 'croissant', 'rye loaf', 'brolind tea'."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.25:
            return self.draw(lambda: rng.choice(ITEM_NOUNS))
        if kind < 0.6:
            return self.draw(lambda: f"{rng.choice(MODIFIERS)} {rng.choice(ITEM_NOUNS)}")
        word = self.draw(self._word)
        return word if kind > 0.9 else f"{word} {rng.choice(ITEM_NOUNS)}"

    def person(self) -> str:
        return f"{self.rng.choice(('Ms', 'Mr'))} {self.name()}"

    def full_name(self) -> str:
        return f"{self.name()} {self.name()}"

    def street_address(self) -> str:
        rng = self.rng
        return f"{self.name()} {rng.choice(STREET_KINDS)} {self.number(1, 199)}"

    # -- values --

    def number(self, low: int, high: int) -> str:
        return self.draw(lambda: str(self.rng.randint(low, high)))

    def price(self) -> str:
        rng = self.rng

        def make() -> str:
            kind = rng.random()
            if kind < 0.6:
                return f"{rng.randint(0, 19)}.{rng.randint(0, 19) * 5:02d} euros"
            if kind < 0.8:
                return f"{rng.randint(2, 999)} euros"
            return f"{rng.randint(0, 199)}.{rng.randint(0, 99):02d} euros"

        return self.draw(make)

    def _clock(self, low: int, high: int) -> str:
        return f"{self.rng.randint(low, high)}:{self.rng.choice(('00', '00', '30', '15', '45'))}"

    def time(self) -> str:
        return self.draw(lambda: self._clock(5, 22))

    def opening_hours(self) -> str:
        """Whole hours. No two ranges of one business begin alike, so that a range can be told by its beginning."""

        def make() -> str:
            opens = self.rng.choice([hour for hour in range(4, 15) if hour not in self._openings] + [15])
            return f"from {opens} to {self.rng.randint(opens + 1, 24)}"

        hours = self.draw(make)
        self._openings.add(int(hours.split()[1]))
        return hours

    def span(self) -> str:
        rng = self.rng
        return self.draw(lambda: f"{rng.randint(2, 120)} {rng.choice(('minutes', 'hours', 'days', 'weeks'))}")

    def people(self) -> str:
        return self.draw(lambda: f"{self.rng.randint(2, 400)} people")

    def year(self) -> str:
        return self.draw(lambda: str(self.rng.randint(1400, 2024)))

    def phone(self) -> str:
        rng = self.rng
        return self.draw(lambda: f"0{rng.randint(10, 99)} {rng.randint(100, 999)} {rng.randint(100, 999)}")

    def email(self) -> str:
        rng = self.rng
        local = rng.choice(("info", "hello", "office", "mail", "contact", "shop", "desk", "team"))
        return self.draw(lambda: f"{local}@{self._word()}.{rng.choice(('com', 'org', 'net', 'example'))}")

    def website(self) -> str:
        return self.draw(lambda: f"www.{self._word()}.{self.rng.choice(('com', 'org', 'net', 'example'))}")

    def contents(self) -> str:
        rng = self.rng

        def make() -> str:
            *most, last = rng.sample(INGREDIENTS, rng.randint(2, 4))
            return f"{', '.join(most)} and {last}"

        return self.draw(make)

    def availability(self) -> str:
        rng = self.rng

        def make() -> str:
            if rng.random() < 0.5:
                return f"{rng.choice(DAYS)} {rng.choice(PARTS_OF_DAYS)}"
            return f"{rng.choice(MONTHS)} to {rng.choice(MONTHS)}"

        return self.draw(make)

    def working_day(self) -> str:
        return self.draw(lambda: f"{self.rng.choice(DAYS)} {self.rng.choice(PARTS_OF_DAYS)}")

    def spot(self) -> str:
        rng = self.rng
        where = ("behind", "near", "opposite", "beside", "above", "below", "past", "before", "outside")
        return self.draw(lambda: f"{rng.choice(where)} the {rng.choice(SPOTS)}")

    def language(self) -> str:
        return self.draw(lambda: self.rng.choice(LANGUAGES))

    def password(self) -> str:
        return self.draw(lambda: f"{self._word()}{self.rng.randint(10, 999)}")
