"""``banyan simulate`` from the command line to table, JSON and picture."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from backend.cli.main import main
from backend.cli.simulate import command
from backend.cli.simulate.grid import Variant, variants
from backend.cli.simulate.options import WORKLOAD_ARGUMENTS
from backend.cli.simulate.picture import figure_of, styles
from backend.cli.simulate.report import Report, labels
from backend.cli.simulate.workloads import SHAPES, option_of

SMALL = ["--shared-prefix", "--groups", "4", "--prompts-per-group", "4", "--system-tokens", "64"]
SMALL += ["--question-tokens", "16", "--output-tokens", "8", "--cost", "h200-8b"]


def simulate(*arguments: str) -> int:
    return main(["simulate", *arguments])


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """What ``--picture`` draws, in place of the drawing."""
    drawn: list[Report] = []
    monkeypatch.setattr(command, "draw", lambda report, path: drawn.append(report))
    return drawn


def test_arms_against_load_with_picture_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture, document = tmp_path / "arms.svg", tmp_path / "arms.json"
    limits = ["--ttft-limit", "500", "--tpot-limit", "50"]
    outputs = ["--picture", str(picture), "--json", str(document)]
    assert simulate(*SMALL, "--arm", "shared,paged", "--load", "20,40,80", *limits, *outputs) == 0
    printed = capsys.readouterr().out
    assert printed.count("shared ") >= 3 and printed.count("paged ") >= 3
    assert "TTFT ms" in printed and "compares policies, not machines" in printed and str(picture) in printed
    report = json.loads(document.read_bytes())
    assert report["unit"] == "requests/s" and report["machine"] == "h200-8b"
    assert [(run["variant"]["arm"], run["load"]) for run in report["runs"]] == [
        (arm, load) for arm in ("shared", "paged") for load in (20.0, 40.0, 80.0)
    ]
    assert {run["figures"]["requests"] for run in report["runs"]} == {16}
    assert report["runs"][0]["figures"]["hit_rate"] > 0.5 > report["runs"][3]["figures"]["hit_rate"]
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")


def test_what_the_picture_shows(reports: list[Report]) -> None:
    arguments = ["--arm", "shared,paged", "--load", "20,80", "--ttft-limit", "500", "--picture", "x.png"]
    assert simulate(*SMALL, *arguments) == 0
    goodput, ttft = figure_of(reports[0]).axes
    assert {axes.get_xlabel() for axes in (goodput, ttft)} == {"load (requests/s)"}
    assert (goodput.get_ylabel(), ttft.get_ylabel()) == ("goodput (requests/s)", "p99 time to first token (s)")
    assert [line.get_label() for line in goodput.get_lines()] == ["sent", "shared", "paged"]
    runs = reports[0].runs[:2]
    assert list(goodput.get_lines()[1].get_ydata()) == [run.figures.goodput_per_s for run in runs]
    assert list(ttft.get_lines()[0].get_ydata()) == [run.figures.ttft_p99 for run in runs]


def test_one_load_is_drawn_against_pages(reports: list[Report]) -> None:
    arguments = ["--pages", "300,30", "--arm", "shared,paged", "--load", "50", "--picture", "x.png"]
    assert simulate(*SMALL, *arguments) == 0
    goodput, _, hits = figure_of(reports[0]).axes
    assert goodput.get_xlabel() == "KV pages of each engine"
    assert [line.get_label() for line in hits.get_lines()] == ["shared", "paged"]
    shared, paged = (
        {run.variant.pages: run for run in reports[0].runs if run.variant.arm == arm} for arm in ("shared", "paged")
    )
    assert list(hits.get_lines()[0].get_xdata()) == [30, 300]
    assert list(hits.get_lines()[0].get_ydata()) == [100 * shared[pages].figures.hit_rate for pages in (30, 300)]
    assert paged[30].figures.hit_rate == 0


def test_a_fleet_as_png(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "fleet.png"
    fleet = ["--replicas", "1,3", "--routing", "random,prefix", "--pages", "64,256", "--load", "100"]
    assert simulate(*SMALL, *fleet, "--picture", str(picture)) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert printed.count("one engine") == 2 and printed.count("3 replicas, prefix") == 2
    assert "64 pages" in printed and "256 pages" in printed


def test_a_single_run_shows_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    chat = ["--chat", "--requests", "60", "--load", "2", "--tenants", "12", "--system-tokens", "100"]
    more = ["--public-prompts", "2", "--max-tokens", "40", "--replicas", "2", "--inter-token", "100", "--learn"]
    assert simulate(*chat, *more) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("of earlier turns", "KV slots without a token", "tenant 0: requests", "more tenants", "replica 1:"):
        assert text in printed


@pytest.mark.parametrize(("arguments", "isolation_s"), [([], 0.025), (["--isolation", "40"], 0.04)])
def test_a_loud_tenant_is_held_back_as_in_the_engine(
    arguments: list[str], isolation_s: float, reports: list[Report]
) -> None:
    assert simulate(*SMALL, "--inter-token", "100", "--picture", "x.png", *arguments) == 0
    assert reports[0].common.settings.isolation_s == isolation_s


def test_mooncake_at_twice_its_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [
        {"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [0, 1]},
        {"timestamp": 9000, "input_length": 600, "output_length": 4, "hash_ids": [0, 2]},
    ]
    trace.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert simulate("--mooncake", str(trace), "--load", "2") == 0
    printed = capsys.readouterr().out
    assert "512 (39.4%)" in printed and "2 times the trace's speed" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mooncake", "nowhere.jsonl"], "nowhere.jsonl: No such file"),
        (["--picture", "plan.pdf"], "plan.pdf must end with .svg or .png"),
        (["--json", "no/folder/x.json"], "there is no folder"),
        (["--shared-prefix", "--think", "3"], "--think is not an option of --shared-prefix"),
        (["--chat", "--groups", "3"], "--groups is not an option of --chat"),
        (["--load", "0"], "--load must be above 0"),
        (["--max-running", "600"], "max_step_tokens (512) must be at least max_running (600)"),
        (["--system-tokens", "9000"], "do not fit into max_context"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert simulate(*arguments) == 1
    error = capsys.readouterr().err
    assert message in error and error.startswith("banyan: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arm", "orca"], "'orca' is not one of shared, paged"),
        (["--routing", "prefix,nearest"], "'nearest' is not one of"),
        (["--cost", "1,2"], "nor four numbers"),
        (["--load", "1,x"], "numbers with commas"),
        (["--pages", "0"], "0 is not a number from 1 on"),
        (["--depth", "3"], "'3' is not one of 1, 2"),
        (["--chat", "--shared-prefix"], "not allowed with"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        simulate(*arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_help_has_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        simulate("--help")
    shown = " ".join(capsys.readouterr().out.split())
    for name, _, _, text in WORKLOAD_ARGUMENTS:
        assert f"{option_of(name)} X" in shown and text in shown
    assert {name for name, *_ in WORKLOAD_ARGUMENTS} == set(SHAPES)


def test_options_reach_the_engine(tmp_path: Path) -> None:
    document = tmp_path / "runs.json"

    def figures(*arguments: str) -> list[dict]:
        assert simulate(*SMALL, "--load", "0", "--json", str(document), *arguments) == 0
        return [run["figures"] for run in json.loads(document.read_bytes())["runs"]]

    alone, ahead = figures("--depth", "1,2", "--host", "3")
    assert ahead["seconds"] < 0.8 * alone["seconds"]
    (impatient,) = figures("--queue", "0.001", "--max-running", "2", "--learn")
    assert impatient["expired"] > 0
    (few,) = figures("--page-size", "32", "--pages", "2", "--max-running", "4")
    assert few["rejected"] == 16
    (late,) = figures("--itl-limit", "0.001")
    assert late["attainment"] == 0


def test_costs_of_ones_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert simulate(*SMALL, "--cost", "0.001,1e-5,1e-8,0", "--load", "0") == 0
    assert "a machine of your own" in capsys.readouterr().out


def test_names_and_lines_of_variants() -> None:
    chosen = variants(["shared"], [2], [10, 2000], [1, 4], ["random", "prefix"])
    assert len(chosen) == 2 * (1 + 2), "the routing makes no difference to one replica"
    assert labels(chosen)[:2] == ["10 pages, 1 replica, one engine", "10 pages, 4 replicas, random"]
    assert labels([Variant("paged", 2, 10, 1, "")]) == ["paged"]
    looks = [(style["color"], style["linestyle"]) for style in styles(chosen)]
    assert len(set(looks)) == len(chosen)
