"""Mixture of experts: which experts a token goes to, and what they make of it. Knows tensors only.

Sparsely-gated experts as in Mixtral (Jiang et al. 2024) and Qwen3-MoE: gated MLPs without biases, the k most probable
of which are added up with their probabilities.
"""

import torch

from kernels.reference.silu_and_mul import silu_and_mul


def route(logits: torch.Tensor, top_k: int, renormalise: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The experts of each token.

    logits       [tokens, experts], any floating dtype; computed in float32
    renormalise  whether a token's weights are made to sum to 1 (Mixtral always, Qwen3-MoE with ``norm_topk_prob``)

    Returns weights [tokens, top_k] float32, the softmax over all experts at the chosen ones, and their ids
    [tokens, top_k] int32, most probable first, the smaller id of equals first.
    """
    probabilities = logits.float().softmax(-1)
    weights, experts = probabilities.sort(dim=-1, descending=True, stable=True)
    weights, experts = weights[:, :top_k], experts[:, :top_k]
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.contiguous(), experts.to(torch.int32).contiguous()


def moe(
    x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor, weights: torch.Tensor, experts: torch.Tensor
) -> torch.Tensor:
    """Weighted sum of the chosen experts' outputs.

    x        [tokens, hidden], any floating dtype
    gate_up  [experts, 2 * width, hidden], the dtype of ``x``: gate rows, then up rows
    down     [experts, hidden, width], the dtype of ``x``
    weights  [tokens, top_k] float32
    experts  [tokens, top_k] int32

    Returns [tokens, hidden] in the dtype of ``x``. Computed in float32 (float64 for float64) and rounded once.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    out = torch.zeros_like(wide)
    for expert in torch.unique(experts).tolist():
        token, choice = torch.nonzero(experts == expert, as_tuple=True)
        hidden = silu_and_mul(wide[token] @ gate_up[expert].to(wide.dtype).T)
        out.index_add_(0, token, hidden @ down[expert].to(wide.dtype).T * weights[token, choice, None].to(wide.dtype))
    return out.to(x.dtype)
