"""The ends of loader workers."""

import threading

import pytest
import torch

from unveil.data.workers import load
from unveil.recipe import Loader


class _Busy(torch.utils.data.Dataset):
    """Its workers have threads that are inside PyTorch at the end, as the one that sends batches may be."""

    threads = None

    def __getitem__(self, index):
        if self.threads is None:
            self.threads = [threading.Thread(target=_compute, daemon=True) for _ in range(2)]
            for thread in self.threads:
                thread.start()
        return torch.full((4,), index)


def _compute():
    while True:
        torch.zeros(1000).add(1)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_workers_end_quietly(method):
    arriving = list(load(_Busy(), range(5), Loader(workers=1, start_method=method)))
    assert [batch[0].item() for batch in arriving] == [0, 1, 2, 3, 4]
