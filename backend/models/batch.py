"""What a forward pass is given besides the weights: the tokens of a step and where their keys and values go."""

from dataclasses import dataclass

import torch

from kernels.paged_attention import AttentionPlan


@dataclass(frozen=True)
class Batch:
    """One step. Rows after the last request's are padding; ``attention`` does not cover them.

    tokens      [rows] int64
    positions   [rows] int64
    slots       [rows] int64: page * page_size + offset in the pool, where the row's key and value are written
    attention   which rows see which pages
    logit_rows  [outputs] int64: the rows whose logits are wanted
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    attention: AttentionPlan
    logit_rows: torch.Tensor
