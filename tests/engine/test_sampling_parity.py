"""The whole engine against transformers' own logits processors: the same greedy tokens with penalties, bias and the
like, and the same log-probabilities, in a batch, chunked, with the next step planned ahead, and after preemption."""

from array import array
from pathlib import Path

import pytest
import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from backend.weights.load import load_checkpoint
from scheduler.plan import Sampling, StepPlan, StepResult
from tests.engine.test_greedy_identity import CASE, OUTPUTS, PAGE, SYSTEM, Engine
from tests.models.checkpoints import save

BIAS = {3: 4.0, 700: -5.0, 12: 2.5}
SETTINGS = [
    Sampling(temperature=0.0, repetition_penalty=1.4, logprobs=5),
    Sampling(temperature=0.0, presence_penalty=1.2, frequency_penalty=0.7),
    Sampling(temperature=0.0, frequency_penalty=-0.8, logprobs=0),
    Sampling(temperature=0.0, logit_bias=BIAS, logprobs=20),
    Sampling(temperature=0.0, repetition_penalty=0.8, presence_penalty=-0.5, logit_bias=BIAS),
    Sampling(temperature=0.0),
]


class CountPenalties(LogitsProcessor):
    """OpenAI's API reference: ``mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence``, with ``c[j]`` how
    often token ``j`` was sampled before."""

    def __init__(self, prompt_tokens: int, sampling: Sampling) -> None:
        self.prompt_tokens = prompt_tokens
        self.sampling = sampling

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()
        sampled = input_ids[0, self.prompt_tokens :].tolist()
        for token in set(sampled):
            scores[0, token] -= sampled.count(token) * self.sampling.frequency_penalty + self.sampling.presence_penalty
        return scores


class House:
    """A checkpoint, prompts, and for each with its setting what transformers says: tokens, and log-probabilities
    [outputs, vocab] of the unchanged logits."""

    def __init__(self, folder: Path) -> None:
        reference = save(CASE, folder)
        self.model = load_checkpoint(folder).model
        generator = torch.Generator().manual_seed(8)

        def draw(count: int) -> list[int]:
            return torch.randint(0, CASE.vocab, (count,), generator=generator).tolist()

        system = draw(SYSTEM)
        self.settings = [*SETTINGS, *SETTINGS]
        self.prompts = [system + draw(1 + 6 * index) for index in range(len(self.settings))]
        answers = [self._plain(reference, *both) for both in zip(self.prompts, self.settings, strict=True)]
        self.expected = [tokens for tokens, _ in answers]
        self.logprobs = [logprobs for _, logprobs in answers]
        with torch.no_grad():
            self.of_prompts = [
                reference(torch.tensor([prompt])).logits[0].float().log_softmax(-1) for prompt in self.prompts
            ]

    @staticmethod
    def _plain(reference: torch.nn.Module, prompt: list[int], sampling: Sampling) -> tuple[list[int], torch.Tensor]:
        ids = torch.tensor([prompt])
        processors = LogitsProcessorList()
        if sampling.logit_bias:
            processors.append(SequenceBiasLogitsProcessor([[[k], v] for k, v in sampling.logit_bias.items()]))
        if sampling.repetition_penalty != 1.0:
            processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
        processors.append(CountPenalties(len(prompt), sampling))
        answer = reference.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=OUTPUTS,
            do_sample=False,
            logits_processor=processors,
            return_dict_in_generate=True,
            output_logits=True,
        )
        return answer.sequences[0, len(prompt) :].tolist(), torch.cat(answer.logits).float().log_softmax(-1)

    def check(self, engine: Engine) -> None:
        """Everything at once."""
        assert engine.run(self.prompts, sampling=self.settings) == self.expected
        for sampling, tokens, found, expected in zip(
            self.settings, self.expected, engine.logprobs, self.logprobs, strict=True
        ):
            if sampling.logprobs is None:
                assert found == []
                continue
            assert len(found) == OUTPUTS
            for token, one, row in zip(tokens, found, expected, strict=True):
                assert one.logprob == pytest.approx(float(row[token]), abs=1e-4)
                best = row.topk(sampling.logprobs)
                assert one.top_logprobs == pytest.approx(best.values.tolist(), abs=1e-4)
                assert [float(row[token]) for token in one.top_tokens] == pytest.approx(one.top_logprobs, abs=1e-4)
        engine.load()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    house = House(tmp_path_factory.mktemp("checkpoint"))
    # Settings that change nothing would agree with anything.
    plain = Engine(house.model, 400, 16, 512).run(house.prompts)
    changed = [one != other for one, other in zip(plain, house.expected, strict=True)]
    assert changed == [sampling != SETTINGS[-1] for sampling in house.settings]
    return house


def test_in_a_batch_cold_then_warm(house: House) -> None:
    engine = Engine(house.model, 400, 16, 512)
    house.check(engine)
    house.check(engine)


@pytest.mark.parametrize("depth", [1, 2])
def test_chunked_with_few_rows(house: House, depth: int) -> None:
    """Rows are given to one request after another, each with its own tokens so far."""
    house.check(Engine(house.model, 400, 3, 19, depth=depth))


@pytest.mark.parametrize("spare", [0, 2, 8])
def test_preempted_requests_go_on_as_if_undisturbed(house: House, spare: int) -> None:
    engine = Engine(house.model, -(-(len(house.prompts[-1]) + OUTPUTS) // PAGE) + spare, 16, 512)
    runner = engine.loop.steps.executor.runner  # type: ignore[attr-defined]
    run, resumed = runner.run, []

    def recording(plan: StepPlan) -> StepResult:
        resumed.extend(opened for opened in plan.opened if len(opened.tokens) // 4 > opened.prompt_tokens)
        return run(plan)

    runner.run = recording
    house.check(engine)
    assert all(opened.resumed and opened.sampling.penalises for opened in resumed)
    assert len(resumed) > 0, "nobody was preempted amid an answer that depends on what it said before"
    for opened in resumed:
        whole = house.prompts[opened.request - 1] + house.expected[opened.request - 1]
        known = array("I", opened.tokens).tolist()
        assert known == whole[: len(known)] and opened.prompt_tokens == len(house.prompts[opened.request - 1])


def test_drawn_tokens_do_not_depend_on_company_or_preemption(house: House) -> None:
    settings = [
        Sampling(seed=index, min_p=0.02 * (index % 3), presence_penalty=0.4 * (index % 2), frequency_penalty=0.1)
        for index in range(len(house.prompts))
    ]
    alone = Engine(house.model, 400, 1, 512).run(house.prompts, sampling=settings)
    pages = -(-(len(house.prompts[-1]) + OUTPUTS) // PAGE) + 4
    crowded = Engine(house.model, pages, 16, 40)
    assert crowded.run(house.prompts, sampling=settings) == alone
    assert crowded.load().preemptions > 0
    again = [Sampling(seed=index, frequency_penalty=0.1) for index in range(len(house.prompts))]
    assert Engine(house.model, 400, 16, 512).run(house.prompts, sampling=again) != alone


@pytest.mark.parametrize("shape", ["roomy", "chunked", "crowded"])
def test_logprobs_of_prompts(house: House, shape: str) -> None:
    """Cold, cached, in pieces, beside others that are not scored, and after preemption."""
    pages = -(-(len(house.prompts[-1]) + OUTPUTS) // PAGE) + 2
    engine = {
        "roomy": lambda: Engine(house.model, 400, 16, 512),
        "chunked": lambda: Engine(house.model, 400, 4, 19),
        "crowded": lambda: Engine(house.model, pages, 16, 512),
    }[shape]()
    settings = [Sampling(temperature=0.0, prompt_logprobs=index % 3 if index % 4 else None) for index in range(12)]
    plain = Engine(house.model, 400, 16, 512).run(house.prompts)
    for _ in range(2):
        assert engine.run(house.prompts, sampling=settings) == plain
        everyone = zip(house.prompts, settings, engine.prompt_logprobs, house.of_prompts, strict=True)
        for prompt, sampling, found, expected in everyone:
            if sampling.prompt_logprobs is None:
                assert found == []
                continue
            assert len(found) == len(prompt) - 1
            for token, one, row in zip(prompt[1:], found, expected[:-1], strict=True):
                assert one.logprob == pytest.approx(float(row[token]), abs=1e-4)
                best = row.topk(sampling.prompt_logprobs).values.tolist()
                assert one.top_logprobs == pytest.approx(best, abs=1e-4)
    assert (engine.load().preemptions > 0) == (shape == "crowded")
