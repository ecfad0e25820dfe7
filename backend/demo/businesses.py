"""The invented businesses that come with the demo model.

Knows: how to read businesses.json. Does not know: the model.
"""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """A question that the demo model answers, and its answer."""

    question: str
    answer: str


@dataclass(frozen=True)
class Business:
    id: str
    name: str
    blurb: str
    system_prompt: str
    sample_questions: tuple[Sample, ...]


def load_businesses() -> tuple[Business, ...]:
    """All bundled businesses, in the order of the file."""
    entries = json.loads((Path(__file__).parent / "businesses.json").read_text(encoding="utf-8"))
    return tuple(
        Business(
            id=entry["id"],
            name=entry["name"],
            blurb=entry["blurb"],
            system_prompt=entry["system_prompt"],
            sample_questions=tuple(Sample(**sample) for sample in entry["sample_questions"]),
        )
        for entry in entries
    )
