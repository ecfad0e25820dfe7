"""A workload through one engine or many: arrivals in order of time, each to the replica that the router names."""

from collections.abc import Iterable

from scheduler.simulate.figures import Figures, figures_of
from scheduler.simulate.recorder import Limits, Recorder, SimulationError
from scheduler.simulate.replica import Engine, Replica
from scheduler.simulate.routing import ROUTERS, Router
from scheduler.trace import TracedRequest


class Fleet:
    """``replicas`` engines alike behind a router. Between two arrivals they have nothing to do with each other, so each
    is moved up to the next arrival by itself."""

    def __init__(
        self, engine: Engine, replicas: int = 1, routing: str = "round-robin", limits: Limits | None = None
    ) -> None:
        if replicas < 1:
            raise ValueError(f"there must be at least 1 replica, got {replicas}")
        if routing not in ROUTERS:
            raise ValueError(f"routing must be one of {', '.join(ROUTERS)}, got {routing!r}")
        settings = engine.settings
        self.recorder = Recorder(limits or Limits(), settings.output_weight)
        self.replicas = [Replica(engine, self.recorder) for _ in range(replicas)]
        self.router: Router = ROUTERS[routing](replicas, settings.pages * settings.page_size)
        self._traffic = [replica.traffic for replica in self.replicas]

    def publish(self, prompts: Iterable[bytes]) -> None:
        """Make system prompts public on every replica, before the first request."""
        for number, prompt in enumerate(prompts):
            for replica in self.replicas:
                replica.scheduler.publish_prompt(f"prompt {number}", prompt, 0.0, pin="")

    def run(self, trace: Iterable[TracedRequest]) -> Figures:
        """All requests, to their ends; ``SimulationError`` when one fails or is lost. Requests that a replica refuses
        are counted and not sent again."""
        for number, traced in enumerate(trace, 1):
            for replica in self.replicas:
                replica.advance(traced.arrival)
            chosen = self.router.route(traced, self._traffic) if len(self.replicas) > 1 else 0
            self.replicas[chosen].submit(number, traced)
        self.recorder.arrivals_end()
        for replica in self.replicas:
            replica.advance(float("inf"))
        if self.recorder.open:
            raise SimulationError(f"{self.recorder.open} requests were lost")
        return figures_of(self.recorder, self.replicas)


def simulate(
    trace: Iterable[TracedRequest],
    engine: Engine,
    replicas: int = 1,
    routing: str = "round-robin",
    limits: Limits | None = None,
    public: Iterable[bytes] = (),
) -> Figures:
    """Run a workload to its end. ``public``: system prompts that everybody may share."""
    fleet = Fleet(engine, replicas, routing, limits)
    fleet.publish(public)
    return fleet.run(trace)
