"""The C++ library's draw (native/sample.cpp): the reference's tokens, to the bit."""

import torch

from kernels.cpu.library import SampleCall, call
from kernels.reference.sample import LogitBias, Penalties


def sample(
    logits: torch.Tensor,
    temperature: torch.Tensor,
    top_k: torch.Tensor,
    top_p: torch.Tensor,
    seed: torch.Tensor,
    position: torch.Tensor,
    min_p: torch.Tensor | None,
    penalties: Penalties | None,
    logit_bias: LogitBias | None,
    bitmask: torch.Tensor | None,
) -> torch.Tensor:
    """See ``kernels.sample.sample``."""
    rows, vocab = logits.shape
    tokens = torch.empty(rows, dtype=torch.int64)
    kept: list[torch.Tensor] = []  # alive until the call is over

    def place(tensor: torch.Tensor | None) -> int | None:
        if tensor is None:
            return None
        kept.append(tensor.contiguous())
        return kept[-1].data_ptr()

    told = SampleCall(
        logits=place(logits),
        rows=rows,
        vocab=vocab,
        temperature=place(temperature),
        top_k=place(top_k),
        top_p=place(top_p),
        seed=place(seed),
        position=place(position),
        min_p=place(min_p),
        tokens=tokens.data_ptr(),
    )
    if penalties is not None:
        told.history, told.history_slot = place(penalties.history), place(penalties.slot)
        told.repetition, told.presence = place(penalties.repetition), place(penalties.presence)
        told.frequency = place(penalties.frequency)
    if logit_bias is not None:
        told.bias_tokens, told.bias_values = place(logit_bias.tokens), place(logit_bias.values)
        told.bias_count = logit_bias.tokens.shape[1]
    if bitmask is not None:
        told.mask, told.mask_stride = place(bitmask), bitmask.shape[1]
    if rows:
        call("banyan_sample", told)
    return tokens
