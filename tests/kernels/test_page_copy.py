"""Copies of whole pages."""

import torch

from kernels.reference.page_copy import page_copy


def test_copies_whole_pages_and_nothing_else() -> None:
    pool = torch.randn(5, 2, 2, 3, 4, 8)
    before = pool.clone()
    page_copy(pool, torch.tensor([1, 1, 3]), torch.tensor([4, 0, 2]))
    for page, source in enumerate([1, 1, 3, 3, 1]):
        assert torch.equal(pool[page], before[source])
    page_copy(pool, torch.tensor([], dtype=torch.int64), torch.tensor([], dtype=torch.int64))
