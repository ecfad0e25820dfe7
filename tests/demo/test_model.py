"""The plain-torch Llama and its training: caching, storage, batches, agreement with transformers."""

import random
from pathlib import Path

import pytest
import torch

from backend.demo.curriculum import STAGES, Stage, make_batch
from backend.demo.initial_weights import initialise
from backend.demo.model import DemoLlama, Past, Shape, load_model, save_model
from backend.demo.tokenizer import ChatEncoder
from backend.demo.train import Recipe, Trainer, answers_right

TINY = Shape(width=64, layers=2, heads=2, hidden=96)


@pytest.fixture
def tiny() -> DemoLlama:
    torch.manual_seed(0)
    model = DemoLlama(TINY)
    initialise(model)
    return model.eval()


def test_decoding_with_a_past_gives_the_same_states(tiny: DemoLlama) -> None:
    tokens = torch.randint(0, TINY.vocabulary, (2, 17))
    past = Past()
    with torch.no_grad():
        pieces = [tiny.hidden(piece, past) for piece in tokens.split([9, 1, 5, 2], dim=1)]
        torch.testing.assert_close(torch.cat(pieces, dim=1), tiny.hidden(tokens), atol=1e-4, rtol=1e-4)
    assert past.positions == 17


def test_stored_models_load_alike(tiny: DemoLlama, tmp_path: Path) -> None:
    save_model(tiny, tmp_path, torch.float32)
    tokens = torch.randint(0, TINY.vocabulary, (1, 9))
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(tokens), tiny(tokens))


def test_transformers_computes_the_same(tiny: DemoLlama, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(tiny, tmp_path, torch.float32)
    reference = transformers.LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokens = torch.randint(0, TINY.vocabulary, (2, 33))
    with torch.no_grad():
        torch.testing.assert_close(tiny(tokens), reference(tokens).logits, atol=1e-3, rtol=1e-3)


def test_answers_right_counts_whole_answers() -> None:
    targets = torch.tensor([[-1, 5, 6, -1, 7], [8, -1, -1, 9, 9]])
    right = torch.tensor([[False, True, False, False, True], [True, False, False, True, True]])
    assert answers_right(right, targets) == (3, 4)


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_batches_have_the_shape_of_their_stage(stage: Stage) -> None:
    batch = make_batch(stage, ChatEncoder.load(), random.Random(1))
    assert batch.tokens.shape == batch.targets.shape == (stage.rows, stage.length)
    following, counted = batch.tokens[:, 1:], batch.targets[:, :-1] >= 0
    assert torch.equal(following[counted], batch.targets[:, :-1][counted])
    assert (batch.targets >= 0).any(dim=1).all()


def test_training_goes_on_where_it_stopped(tiny: DemoLlama, tmp_path: Path) -> None:
    encoder = ChatEncoder.load()
    trainer = Trainer(tiny, encoder, Recipe(), seed=1)
    first, _ = trainer.step(done=0.0)
    assert 0 < first < 20
    trainer.save(tmp_path / "state.pt")
    again = Trainer.resume(tmp_path / "state.pt", encoder, Recipe())
    assert again.progress == trainer.progress
    for old, new in zip(tiny.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(old, new)
    again.step(done=0.5)
    assert again.progress.step == 2
