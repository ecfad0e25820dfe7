"""Paged attention on CPUs: gather pages once per group of requests, then one fused attention call for the group.

Decode rows of similar length form a padded batch; a longer item is a call of its own. Gathering costs about as much as
the attention itself, so a group of decode rows is small enough for its gathered keys and values to be in cache when
they are read: 16 rows of 1,024 keys (3 KV heads of 64, float32, one thread) took 3.2 ms a layer in groups of 3 MB, 4.9
ms in one group.

Bitwise equality. A token must get the same bits alone and in a batch, in a chunk of 1 and of 500, or greedy text would
depend on the neighbours. The fused CPU kernel walks keys in blocks of 512 from the first; masked keys add exact zeros;
what is left to differ is the matrix products inside, and those were probed on AVX-512 with MKL:
  rows   1-3 rows go another way than 4 and more: query rows are padded to a multiple of 4 (``ROW_MULTIPLE``);
  keys   a last block of 193-383 keys is summed in two equal halves, up to 192 in one, and from 384 on in parts of 192:
         so the last block is padded to a width of the first or the third kind (``TAIL_WIDTHS``).
Elsewhere (other CPUs, other BLAS) results agree to rounding, and tests on the machine say whether to the bit.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import pad, scaled_dot_product_attention

KEY_BLOCK = 512
TAIL_WIDTHS = (0, 64, 128, 192, 384, 448, 512)
ROW_MULTIPLE = 4
GROUP_FILL = 0.75  # shortest padded length in a group of decode rows, as a part of the longest
GROUP_BYTES = 4 << 20  # most gathered keys and values of a group of decode rows: still in cache when they are read


@dataclass(frozen=True)
class Group:
    """One call. Decode rows: ``rows`` are the token rows. One longer item: ``rows`` is None, tokens ``first`` and
    ``count``.

    blocks  int64, [2 * items * kv_heads * pages]: index of each (page, K or V, head) block of layer 0, in gathered
            order
    shape   (2, items, kv_heads, gathered keys, head_dim)
    mask    [items, 1, query rows or 1, width]: 0, or -inf where a key must not be seen
    """

    rows: torch.Tensor | None
    first: int
    count: int
    blocks: torch.Tensor
    shape: tuple[int, ...]
    mask: torch.Tensor


@dataclass(frozen=True)
class CpuAttentionPlan:
    """The groups of one step; every layer runs the same."""

    groups: list[Group]

    @staticmethod
    def make(
        counts: np.ndarray, starts: np.ndarray, block_tables: np.ndarray, pool: torch.Tensor
    ) -> "CpuAttentionPlan":
        """See ``kernels.paged_attention.plan_attention``."""
        counts, starts = np.asarray(counts, np.int64), np.asarray(starts, np.int64)
        firsts = np.cumsum(counts) - counts
        lengths = starts + counts
        widths = padded_widths(lengths)
        groups = [
            _chunk_group(int(firsts[i]), int(counts[i]), int(lengths[i]), int(widths[i]), block_tables[i], pool)
            for i in np.flatnonzero(counts > 1)
        ]
        decodes = np.flatnonzero(counts == 1)
        decodes = decodes[np.argsort(-widths[decodes], kind="stable")]
        groups.extend(
            _decode_group(firsts[part], lengths[part], int(widths[part[0]]), block_tables[part], pool)
            for part in _similar(decodes, widths, _keys_in_cache(pool))
        )
        return CpuAttentionPlan(groups)


def paged_attention(
    q: torch.Tensor, pool: torch.Tensor, layer: int, plan: CpuAttentionPlan, scale: float
) -> torch.Tensor:
    """See ``kernels.paged_attention.paged_attention``."""
    kv_heads, page_size, head_dim = pool.shape[3:]
    blocks = pool.view(-1, page_size * head_dim)
    out = torch.zeros_like(q)
    for group in plan.groups:
        width = group.mask.shape[-1]
        gathered = blocks.index_select(0, group.blocks + layer * 2 * kv_heads).view(group.shape)
        key, value = gathered[0, :, :, :width], gathered[1, :, :, :width]
        if group.rows is None:
            out[group.first : group.first + group.count] = _attend_chunk(q, key, value, group, scale)
        else:
            out[group.rows] = _attend_decodes(q[group.rows], key, value, group.mask, scale)
    return out


def padded_widths(lengths: np.ndarray) -> np.ndarray:
    """Lengths rounded up to widths at which a row's sum does not depend on the width (see the head of the file)."""
    full, tail = np.divmod(lengths, KEY_BLOCK)
    tails = np.asarray(TAIL_WIDTHS)
    return np.asarray(full * KEY_BLOCK + tails[np.searchsorted(tails, tail)])


def _attend_decodes(
    q: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scale: float
) -> torch.Tensor:
    """q [items, heads, head_dim] -> the same. The heads of a KV head are its query rows, so each key is read once."""
    items, heads, head_dim = q.shape
    kv_heads = key.shape[1]
    group = heads // kv_heads
    query = pad(q.view(items, kv_heads, group, head_dim), (0, 0, 0, -group % ROW_MULTIPLE))
    mask = mask.expand(-1, -1, query.shape[2], -1)
    out = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    return out[:, :, :group].reshape(items, heads, head_dim)


def _attend_chunk(q: torch.Tensor, key: torch.Tensor, value: torch.Tensor, group: Group, scale: float) -> torch.Tensor:
    """Tokens ``first .. first + count`` of q [tokens, heads, head_dim] -> [count, heads, head_dim]."""
    query = q[group.first : group.first + group.count].transpose(0, 1)
    query = pad(query, (0, 0, 0, -group.count % ROW_MULTIPLE))[None]
    out = scaled_dot_product_attention(query, key, value, attn_mask=group.mask, scale=scale, enable_gqa=True)
    return out[0, :, : group.count].transpose(0, 1)


def _keys_in_cache(pool: torch.Tensor) -> int:
    kv_heads, _, head_dim = pool.shape[3:]
    return GROUP_BYTES // (2 * kv_heads * head_dim * pool.element_size())


def _similar(decodes: np.ndarray, widths: np.ndarray, most_keys: int) -> list[np.ndarray]:
    """Cut decode items, widest first, into groups of at most ``most_keys`` (or one item) that waste little padding."""
    groups = []
    while len(decodes):
        widest = int(widths[decodes[0]])
        size = int(np.count_nonzero(widths[decodes] >= GROUP_FILL * widest))
        size = min(size, max(1, most_keys // widest))
        groups.append(decodes[:size])
        decodes = decodes[size:]
    return groups


def _decode_group(firsts: np.ndarray, lengths: np.ndarray, width: int, tables: np.ndarray, pool: torch.Tensor) -> Group:
    blocks, shape = _gather_blocks(tables, lengths, width, pool)
    visible = torch.from_numpy(lengths)[:, None].to(pool.device)
    mask = _mask(torch.arange(width, device=pool.device) >= visible, pool.dtype)
    rows = torch.from_numpy(firsts).to(pool.device)
    return Group(rows, 0, len(firsts), blocks, shape, mask[:, None, None])


def _chunk_group(first: int, count: int, length: int, width: int, table: np.ndarray, pool: torch.Tensor) -> Group:
    blocks, shape = _gather_blocks(table[None], np.asarray([length]), width, pool)
    rows = count + -count % ROW_MULTIPLE
    # Padding rows see what the last token sees: a row without any key would be NaN.
    visible = torch.arange(length - count + 1, length - count + 1 + rows, device=pool.device).clamp_(max=length)[
        :, None
    ]
    mask = _mask(torch.arange(width, device=pool.device) >= visible, pool.dtype)
    return Group(None, first, count, blocks, shape, mask[None, None])


def _mask(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, float("-inf"))


def _gather_blocks(
    tables: np.ndarray, lengths: np.ndarray, width: int, pool: torch.Tensor
) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Block indices of layer 0 in the order (K or V, item, head, page), so that one gather gives contiguous heads."""
    layers, _, kv_heads, page_size, head_dim = pool.shape[1:]
    pages = -(-width // page_size)
    table = np.zeros((len(tables), pages), np.int64)
    known = min(pages, tables.shape[1])
    table[:, :known] = tables[:, :known]
    # Beyond its length an item reads its own first page again: masked keys are multiplied by 0, and only what is its
    # own is sure to be finite when another request's pages are not.
    used = -(-lengths // page_size)
    table = np.where(np.arange(pages) < used[:, None], table, table[:, :1])
    kinds = np.arange(2)[:, None, None, None] * kv_heads
    heads = np.arange(kv_heads)[None, None, :, None]
    blocks = table[None, :, None, :] * (layers * 2 * kv_heads) + kinds + heads
    return torch.from_numpy(blocks.reshape(-1)).to(pool.device), (2, len(tables), kv_heads, pages * page_size, head_dim)
