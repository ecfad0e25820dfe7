"""Every family gives what transformers gives: the same logits and greedy tokens, in a batch, chunked, cold and warm."""

import pytest
import torch

from backend.engine.runner import Runner
from backend.weights.load import load_checkpoint
from kernels.cpu import library
from tests.engine.driver import Driver
from tests.models.checkpoints import CASES, Case, save

LENGTHS = (1, 33, 50)
OUTPUTS = 64
PAGE = 16


def greedy(model: torch.nn.Module, prompt: list[int]) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens of transformers' ``generate`` and the logits [outputs, vocab] that they were chosen from."""
    answer = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=OUTPUTS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return answer.sequences[0, len(prompt) :].tolist(), torch.cat(answer.logits)


@pytest.mark.parametrize("native", [True, False], ids=["library", "torch"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_logits_and_tokens(case: Case, native: bool, tmp_path, monkeypatch) -> None:
    if not native:
        monkeypatch.setattr(library, "library", lambda: None)
    elif not library.available():
        pytest.skip("the library of CPU kernels was not built")
    reference = save(case, tmp_path)
    generator = torch.Generator().manual_seed(7)
    prompts = [torch.randint(0, case.vocab, (n,), generator=generator).tolist() for n in LENGTHS]
    expected = [greedy(reference, prompt) for prompt in prompts]
    # A degenerate model would agree about anything.
    assert all(len(set(tokens)) > 3 for tokens, _ in expected)

    driver = Driver(Runner(load_checkpoint(tmp_path).model, 400, PAGE, 16))
    cold = [
        driver.sequence(slot, prompt, chunk)
        for slot, (prompt, chunk) in enumerate(zip(prompts, (64, 1, 7), strict=True))
    ]
    more = [
        driver.sequence(3 + slot, prompt, chunk)
        for slot, (prompt, chunk) in enumerate(zip(prompts, (7, 64, 1), strict=True))
    ]
    driver.finish(cold + more, OUTPUTS)
    warm = [
        driver.warm(6 + slot, prompt, source, 7)
        for slot, (prompt, source) in enumerate(zip(prompts, cold, strict=True))
    ]
    assert [sequence.computed for sequence in warm] == [0, 32, 48]
    driver.finish(warm, OUTPUTS)
    for sequence, (tokens, logits) in zip(cold + more + warm, expected * 3, strict=True):
        assert sequence.output == tokens
        torch.testing.assert_close(torch.stack(sequence.logits), logits.float(), atol=1e-4, rtol=0)


def test_half_precision_stays_near(tmp_path) -> None:
    """bfloat16 and float16 runs of the same checkpoint give float32's logits to their precision."""
    case = CASES[0]
    reference = save(case, tmp_path)
    prompt = list(range(40))
    with torch.no_grad():
        expected = reference(torch.tensor([prompt])).logits[0, -1]
    for dtype, most in (("bfloat16", 0.05), ("float16", 0.01)):
        model = load_checkpoint(tmp_path, dtype).model
        driver = Driver(Runner(model, 8, PAGE, 2))
        sequence = driver.sequence(0, prompt)
        driver.finish([sequence], 1)
        assert sequence.logits[0].dtype == torch.float32
        assert float((sequence.logits[0] - expected).norm() / expected.norm()) < most
