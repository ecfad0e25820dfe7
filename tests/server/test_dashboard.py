"""The dashboard asks for nothing that /metrics does not have."""

import json
import re
from pathlib import Path

from tests.server.conftest import House

DASHBOARD = Path(__file__).parents[2] / "docs" / "grafana.json"


def test_every_metric_of_the_dashboard_is_there(quiet_house: House) -> None:
    text = quiet_house.service.metrics.text().decode()
    there = set(re.findall(r"^# TYPE (banyan:\w+) ", text, re.MULTILINE))
    board = json.loads(DASHBOARD.read_text())
    asked = {
        re.sub(r"_bucket$", "", name)
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"banyan:\w+", target["expr"])
    }
    assert len(asked) > 20
    assert {name for name in asked if name not in there and f"{name.removesuffix('_total')}" not in there} == set()
    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
