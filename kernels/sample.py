"""Drawing one token per row from logits. Knows tensors only; which row is whose belongs to the engine."""

import torch

from kernels.reference.sample import sample as reference


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
) -> torch.Tensor:
    """One token id per row; a pure function of that row's arguments.

    logits       [rows, vocab] float32, finite
    temperature  [rows] float32; 0 takes the largest logit (the first of equals) and ignores the rest
    top_k        [rows] int64; keep the k largest logits (and all equal to the k-th); 0 or >= vocab keeps all
    top_p        [rows] float32; then keep the smallest set of most probable tokens whose mass reaches p (and all equal
                 to the last); 1 keeps all, 0 keeps the most probable
    seed         [rows] int64, any bits
    position     [rows] int64: position of the drawn token in its request

    Returns [rows] int64. The draw is Gumbel-max: the largest of ``logit / temperature + noise`` over the kept tokens,
    with noise from a counter-based generator keyed (seed, position, token id), so it does not depend on other rows, on
    the order of tokens, or on what was drawn before.
    """
    return reference(logits, temperature, top_k, top_p, seed, position)
