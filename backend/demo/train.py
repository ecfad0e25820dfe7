"""Trains the demo model: the stages of the curriculum, in turn, as the measured accuracy allows.

Knows: the optimizers, the schedule, checkpoints. Does not know: what the conversations say.

    python -m backend.demo.train --minutes 60                     a new model
    python -m backend.demo.train --minutes 30 --resume CKPT       goes on from a checkpoint
    python -m backend.demo.train --minutes 0 --resume CKPT        only writes the checkpoint as the bundled model
"""

import argparse
import json
import math
import os
import random
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from backend.demo.curriculum import STAGES, Batch, make_batch
from backend.demo.initial_weights import initialise
from backend.demo.model import DemoLlama, Shape, save_model
from backend.demo.tokenizer import MODEL_DIR, ChatEncoder

ADVANCE_AT = 0.8  # share of answers exactly right, at which the next stage begins
EARLIER_STAGES = 0.2  # share of the batches that repeat earlier stages
FIRST_TOKEN_WEIGHT = 3.0  # the first token alone decides between a fact and "I do not have that information."
WARM_UP_STEPS = 100
SECONDS_PER_CHECKPOINT = 120


@dataclass(frozen=True)
class Recipe:
    """What a run may choose. Rates are the peak ones."""

    muon_rate: float = 0.002
    adam_rate: float = 0.002
    decay_from: float = 0.6  # share of the time after which the rate falls to zero


@dataclass
class Progress:
    """Where training stands; stored in checkpoints."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    stage: int = 0
    accuracy: float = 0.0  # running average over the batches of the current stage


def answer_starts(counted: Tensor) -> Tensor:
    """Which of the counted positions [rows, length] begin an answer."""
    starts = counted.clone()
    starts[:, 1:] &= ~counted[:, :-1]
    return starts


def answers_right(right: Tensor, targets: Tensor) -> tuple[int, int]:
    """How many answers are right in all of their tokens, and how many answers there are.

    right: bool [rows, length], where the model's first choice is the target. This is what greedy decoding would give:
    a right answer is one whose every token is chosen after the right tokens before it.
    """
    counted = targets >= 0
    starts = answer_starts(counted)
    number = starts.flatten().cumsum(0)[counted.flatten()] - 1  # of the answer each counted token belongs to
    answers = int(starts.sum())
    wrong = torch.zeros(answers).index_add_(0, number, (~right[counted]).float())
    return int((wrong == 0).sum()), answers


class Trainer:
    """A model in training. `compiled` costs half a minute per stage and saves a sixth of each step."""

    def __init__(
        self, model: DemoLlama, encoder: ChatEncoder, recipe: Recipe, seed: int, compiled: bool = False
    ) -> None:
        self.model = model
        self._hidden = torch.compile(model.hidden, dynamic=False) if compiled else model.hidden
        self.encoder = encoder
        self.recipe = recipe
        self.rng = random.Random(seed)
        self.progress = Progress()
        matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
        others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Muon(matrices, lr=recipe.muon_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=recipe.adam_rate, weight_decay=0.0, betas=(0.9, 0.98)),
        ]

    # -- one step --

    def _set_rates(self, done: float) -> None:
        """done: share of the run's time that has passed."""
        warm = min(1.0, (self.progress.step + 1) / WARM_UP_STEPS)
        left = min(1.0, (1.0 - done) / (1.0 - self.recipe.decay_from))
        for optimizer, peak in zip(self.optimizers, (self.recipe.muon_rate, self.recipe.adam_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * warm * max(left, 0.0)

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Weighted mean loss over the answers' tokens, and where the first choice is right [rows, length]."""
        counted = batch.targets >= 0
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model.logits(self._hidden(batch.tokens)[counted])
        wanted = batch.targets[counted]
        right = torch.zeros_like(counted)
        right[counted] = logits.argmax(-1) == wanted
        weights = 1.0 + (FIRST_TOKEN_WEIGHT - 1.0) * answer_starts(counted)[counted]
        losses = F.cross_entropy(logits.float(), wanted, reduction="none")
        return (losses * weights).sum() / weights.sum(), right

    def step(self, done: float) -> tuple[float, float]:
        """One update; returns the loss and the share of answers that are exactly right."""
        progress = self.progress
        current = progress.stage == 0 or self.rng.random() >= EARLIER_STAGES
        stage = STAGES[progress.stage if current else self.rng.randrange(progress.stage)]
        batch = make_batch(stage, self.encoder, self.rng)
        self._set_rates(done)
        loss, right = self._loss(batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        progress.step += 1
        progress.tokens += batch.tokens.numel()
        if stage.facts is None:
            accuracy = float(right.sum() / (batch.targets >= 0).sum())
        else:
            exact, answers = answers_right(right, batch.targets)
            accuracy = exact / answers
        if current:
            self._advance(accuracy)
        return loss.item(), accuracy

    def _advance(self, accuracy: float) -> None:
        progress = self.progress
        progress.accuracy += 0.05 * (accuracy - progress.accuracy)
        if progress.accuracy > ADVANCE_AT and progress.stage < len(STAGES) - 1:
            progress.stage += 1
            progress.accuracy = 0.0

    # -- checkpoints --

    def save(self, path: Path) -> None:
        state = {
            "shape": asdict(self.model.shape),
            "model": self.model.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "progress": asdict(self.progress),
        }
        part = path.with_suffix(".part")
        torch.save(state, part)
        part.replace(path)

    @classmethod
    def resume(cls, path: Path, encoder: ChatEncoder, recipe: Recipe, compiled: bool = False) -> "Trainer":
        state = torch.load(path, weights_only=True)
        model = DemoLlama(Shape(**state["shape"]))
        model.load_state_dict(state["model"])
        trainer = cls(model, encoder, recipe, seed=state["progress"]["step"], compiled=compiled)
        trainer.progress = Progress(**state["progress"])
        for optimizer, optimizer_state in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        return trainer


def run(trainer: Trainer, minutes: float, folder: Path) -> None:
    """Trains for so long; prints a line now and then, leaves folder/latest.pt and one checkpoint per stage."""
    begin = last_save = last_print = time.monotonic()
    loss_sum, steps = 0.0, 0
    while (now := time.monotonic()) - begin < minutes * 60:
        stage = trainer.progress.stage
        loss, _ = trainer.step((now - begin) / (minutes * 60))
        if not math.isfinite(loss):
            raise RuntimeError(f"the loss is {loss} at step {trainer.progress.step}")
        trainer.progress.seconds += time.monotonic() - now
        loss_sum, steps = loss_sum + loss, steps + 1
        if now - last_print > 10:
            p = trainer.progress
            rate = p.tokens / p.seconds
            print(
                f"{now - begin:6.0f} s  step {p.step:6d}  {p.tokens / 1e6:7.2f} M tokens  {rate:6.0f}/s  "
                f"stage {p.stage}  loss {loss_sum / steps:.4f}  exact {p.accuracy:.3f}",
                flush=True,
            )
            last_print, loss_sum, steps = now, 0.0, 0
        if trainer.progress.stage != stage:
            print(f"{now - begin:6.0f} s  stage {stage} done", flush=True)
            trainer.save(folder / f"stage{stage}.pt")
        if now - last_save > SECONDS_PER_CHECKPOINT:
            trainer.save(folder / "latest.pt")
            last_save = now
    trainer.save(folder / "latest.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "banyan-demo", help="checkpoints")
    parser.add_argument("--export", type=Path, default=MODEL_DIR, help="where the finished model goes")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compiled", action="store_true", help="use torch.compile (needs a C++ compiler)")
    parser.add_argument("--stage", type=int, help="begin with this stage")
    for name, default in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=default)
    for name, default in asdict(Shape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.folder.mkdir(parents=True, exist_ok=True)
    recipe = Recipe(**{name: getattr(args, name) for name in asdict(Recipe())})
    encoder = ChatEncoder.load()
    if args.resume:
        trainer = Trainer.resume(args.resume, encoder, recipe, args.compiled)
    else:
        shape = Shape(**{name: getattr(args, name) for name in asdict(Shape())})
        model = DemoLlama(shape)
        initialise(model)
        trainer = Trainer(model, encoder, recipe, args.seed, args.compiled)
    if args.stage is not None:
        trainer.progress.stage = args.stage
    run(trainer, args.minutes, args.folder)
    save_model(trainer.model, args.export, torch.bfloat16)
    (args.export / "training.json").write_text(json.dumps(asdict(trainer.progress), indent=2) + "\n")


if __name__ == "__main__":
    main()
