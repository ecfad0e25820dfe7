"""What formats of weights cost in accuracy: perplexity on held-out text of the demo model, and errors of logits.

    python -m benchmarks.weight_error [MODEL] [--conversations 40] [--json FILE]

Held-out conversations (names and values that never occurred in training) with the expected answers, computed in one
pass each; against float32 weights with float32 keys and values. Perplexity counts the tokens of answers, the end of
each included. "logits" is the relative L2 error over all positions, "same choice" how often the largest logit is the
same one.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from backend.demo.conversations import Conversation
from backend.demo.evaluate import held_out_conversations
from backend.demo.tokenizer import MODEL_DIR, ChatEncoder
from backend.models.batch import Batch
from backend.weights.load import load_checkpoint
from kernels.paged_attention import plan_attention

PAGE = 16
FORMATS = (("float32", "auto"), ("bfloat16", "auto"), ("float32", "int8"), ("bfloat16", "int8"))


def token_ids(conversation: Conversation, encoder: ChatEncoder) -> tuple[list[int], list[int]]:
    """All tokens, and the positions of those that the model should have written."""
    ids = encoder.message("system", conversation.system)
    answers: list[int] = []
    for turn in conversation.turns:
        ids += encoder.message("user", turn.question) + encoder.answer_start()
        written = [*encoder.text(turn.answer), encoder.end]
        answers += range(len(ids), len(ids) + len(written))
        ids += written + encoder.text("\n")
    return ids, answers


class Reader:
    """A loaded model that gives the logits of every position."""

    def __init__(self, model: Path, dtype: str, weights: str) -> None:
        loaded = load_checkpoint(model, dtype, weights=weights)
        self.model, self.bytes = loaded.model, loaded.weights_bytes
        config = loaded.config
        pages = -(-config.max_context // PAGE)
        self.table = np.arange(pages, dtype=np.int32)[None]
        self.pool = torch.zeros(pages, config.layers, 2, config.kv_heads, PAGE, config.head_dim, dtype=loaded.dtype)

    def logits(self, ids: list[int]) -> torch.Tensor:
        """[tokens, vocab] float32."""
        rows = torch.arange(len(ids))
        plan = plan_attention(np.array([len(ids)]), np.array([0]), self.table, self.pool)
        return self.model.forward(Batch(torch.tensor(ids), rows, rows, plan, rows), self.pool)[0]


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", default=MODEL_DIR)
    parser.add_argument("--conversations", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    encoder = ChatEncoder.load()
    texts = [token_ids(talk, encoder) for talk in held_out_conversations(options.conversations, encoder, seed=1)]
    exact: list[torch.Tensor] = []
    rows = []
    print(f"{len(texts)} conversations, {sum(len(answers) for _, answers in texts)} tokens of answers")
    print(f"{'weights':<12}{'others':<12}{'MB':>8}{'perplexity':>12}{'logits':>12}{'same choice':>13}")
    for dtype, weights in FORMATS:
        reader = Reader(options.model, dtype, weights)
        loss, count, error, size, same, positions = 0.0, 0, 0.0, 0.0, 0, 0
        for number, (ids, answers) in enumerate(texts):
            logits = reader.logits(ids)
            before = torch.tensor(answers) - 1
            told = torch.tensor(ids)[before + 1]
            loss -= float(logits[before].double().log_softmax(-1).gather(1, told[:, None]).sum())
            count += len(answers)
            if len(exact) <= number:
                exact.append(logits)
            error += float((logits - exact[number]).double().square().sum())
            size += float(exact[number].double().square().sum())
            same += int((logits.argmax(-1) == exact[number].argmax(-1)).sum())
            positions += len(ids)
        name = weights if weights == "int8" else dtype
        row = {
            "weights": name,
            "others": dtype,
            "megabytes": reader.bytes / 1e6,
            "perplexity": math.exp(loss / count),
            "logits_error": math.sqrt(error / size),
            "same_choice": same / positions,
        }
        rows.append(row)
        print(
            f"{name:<12}{dtype:<12}{row['megabytes']:>8.2f}{row['perplexity']:>12.5f}{row['logits_error']:>12.2e}"
            f"{row['same_choice']:>13.4f}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
