"""Whole pages from one place of a pool to another: copy-on-write of a shared page, compaction.

A page is one run of memory, so a copy is a list of equally long runs; they are moved as 8-byte words of any dtype.
"""

# A kernel's arguments have no Python types.
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl

BLOCK = 2048  # words: 16 KiB a program, 16 bytes a thread and load
WARPS = 8


def page_copy(pool: torch.Tensor, source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy page ``source[i]`` over page ``target[i]``, in place.

    pool    [pages, ...], contiguous, any dtype; a page is a multiple of 8 bytes
    source  [n] int64, may repeat
    target  [n] int64, distinct, none of them a source
    """
    words = pool.view(len(pool), -1).view(torch.int64)
    if len(source):
        size = words.shape[1]
        _page_copy[(triton.cdiv(size, BLOCK), len(source))](
            words, source, target, size, BLOCK=BLOCK, num_warps=WARPS
        )  # fmt: skip


@triton.jit
def _page_copy(Pool, Source, Target, size, BLOCK: tl.constexpr):
    word = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(Source + tl.program_id(1))
    target = tl.load(Target + tl.program_id(1))
    valid = word < size
    tl.store(Pool + target * size + word, tl.load(Pool + source * size + word, mask=valid), mask=valid)
