"""A runner without a model: the token it samples is a function of the request's whole prefix, as a model's would be."""

from scheduler.plan import StepPlan, StepResult


class EchoRunner:
    """Samples ``(last token + 1) % vocabulary``. ``broken``: requests that fail; ``explode``: whole steps fail."""

    def __init__(self, vocabulary: int = 50) -> None:
        self.vocabulary = vocabulary
        self.broken: set[int] = set()
        self.explode = False

    def run(self, plan: StepPlan) -> StepResult:
        if self.explode:
            raise RuntimeError("the device is gone")
        tokens = []
        for chunk in plan.chunks:
            last = int.from_bytes(chunk.tokens[-4:], "little")
            tokens.append([(last + 1) % self.vocabulary] if chunk.emits and chunk.request not in self.broken else [])
        failures = {c.request: "logits are not finite" for c in plan.chunks if c.request in self.broken}
        return StepResult(plan.step, tokens, failures)
