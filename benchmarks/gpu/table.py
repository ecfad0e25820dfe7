"""Rows of results: how they are judged, printed and kept."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.gpu.device import Took

UNITS = {"matmul": ("TF", 1e12)}  # everything else is GB/s
HEAD = (
    f"{'id':<4} {'case':<36}{'us':>9} {'rate':>12}{'% ceil':>7}{'floor us':>9}  "
    f"{'peer':<15}{'peer us':>9}{'ratio':>7}  target"
)


@dataclass(frozen=True)
class Row:
    """One line. ``rate`` in ``unit``; ``share`` of the ceiling, 1 being all; ``ratio`` is how many times longer the
    peer takes. ``detail`` rows are kept and not printed. ``passed`` None: there is nothing to hold."""

    id: str
    case: str
    us: float | None = None
    spread: float = 0.0
    rate: float | None = None
    unit: str = ""
    share: float | None = None
    floor_us: float | None = None
    peer: str = ""
    peer_us: float | None = None
    ratio: float | None = None
    value: float | None = None
    target: str = ""
    passed: bool | None = None
    detail: bool = False

    def line(self) -> str:
        """For people."""

        def cell(value: float | None, width: int, form: str) -> str:
            return f"{'' if value is None else format(value, form):>{width}}"

        verdict = {True: "PASS", False: "MISS", None: ""}[self.passed]
        spread = f" +-{self.spread:.0%}" if self.spread > 0.03 else ""
        rate = cell(self.rate, 7, ".0f") + f" {self.unit:<4}" if self.value is None else cell(self.value, 12, ".4g")
        share = cell(None if self.share is None else 100 * self.share, 7, ".1f")
        return (
            f"{self.id:<4} {self.case[:36]:<36}{cell(self.us, 9, '.1f')} {rate}{share}{cell(self.floor_us, 9, '.1f')}  "
            f"{self.peer[:15]:<15}{cell(self.peer_us, 9, '.1f')}{cell(self.ratio, 7, '.2f')}  "
            f"{self.target} {verdict}{spread}"
        ).rstrip()


@dataclass
class Table:
    """All rows, and the ceilings that they are measured against: bytes/s, of ``matmul`` flop/s."""

    ceilings: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    changed: Callable[[], None] = lambda: None
    """Called after each row."""

    def add(self, row: Row) -> Row:
        """Keep a row."""
        self.rows.append(row)
        self.changed()
        return row

    def share(
        self,
        id: str,
        case: str,
        took: Took,
        work: float,
        ceiling: str,
        least: float | None = None,
        peer: str = "",
        peer_took: Took | None = None,
        detail: bool = False,
    ) -> Row:
        """``work`` (bytes, or flop) in a time, held against a part of a ceiling."""
        unit, scale = UNITS.get(ceiling, ("GB/s", 1e9))
        rate = work / took.us * 1e6
        most = self.ceilings.get(ceiling, 0.0)
        share = rate / most if most else None
        return self.add(
            Row(
                id,
                case,
                took.us,
                took.spread,
                rate / scale,
                unit,
                share,
                work / most * 1e6 if most else None,
                peer,
                peer_took.us if peer_took else None,
                peer_took.us / took.us if peer_took else None,
                target=f">={least:.0%} {ceiling}" if least else "",
                passed=share >= least if least and share is not None else None,
                detail=detail,
            )
        )

    def ratio(
        self, id: str, case: str, took: Took, peer: str, peer_took: Took, least: float | None = None, **more: Any
    ) -> Row:
        """A time held against another."""
        ratio = peer_took.us / took.us
        target = f">={least:g}x" if least else ""
        passed = ratio >= least if least else None
        known: dict[str, Any] = {
            "us": took.us,
            "spread": took.spread,
            "peer": peer,
            "peer_us": peer_took.us,
            "ratio": ratio,
        }
        return self.add(Row(id, case, target=target, passed=passed, **known, **more))

    def at_most(self, id: str, case: str, value: float, most: float, detail: bool = False) -> Row:
        """A number that must not be larger."""
        return self.add(Row(id, case, value=value, target=f"<={most:g}", passed=value <= most, detail=detail))

    def true(self, id: str, case: str, holds: bool, detail: bool = False) -> Row:
        """Something that must hold."""
        return self.add(Row(id, case, target="holds", passed=holds, detail=detail))

    def printed(self, most_characters: int) -> str:
        """The lines, those of targets first, cut where they become too many. Misses among the details are shown too."""
        shown = [row for row in self.rows if not row.detail or row.passed is False]
        shown.sort(key=lambda row: not row.id)
        lines = [HEAD, *(row.line() for row in shown)]
        text = "\n".join(lines)
        return text if len(text) <= most_characters else text[:most_characters] + "\n(cut; the file has all)"

    def as_data(self) -> dict[str, Any]:
        """For the file."""
        return {"ceilings": self.ceilings, "rows": [asdict(row) for row in self.rows]}

    def take(self, data: dict[str, Any]) -> None:
        """Go on from the file of an interrupted run."""
        self.ceilings = dict(data["ceilings"])
        self.rows = [Row(**row) for row in data["rows"]]
