"""The ends of loader workers."""

import resource
import threading

import pytest
import torch

from unveil.data.streams import stack
from unveil.data.workers import Failure, load
from unveil.errors import UserError
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


class _NoRoom(torch.utils.data.Dataset):
    """Its workers may not write files, which for the kernel are what processes share, too."""

    def __init__(self, stacked: bool):
        self.stacked = stacked

    def __getitem__(self, index):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        try:
            return {"x": stack([torch.zeros(3)] * 2) if self.stacked else torch.zeros(3), "bad": [("a", "b")]}
        except UserError as error:
            return Failure(error)


@pytest.mark.parametrize("stacked", [False, True])
def test_no_room_to_hand_over_is_said_and_not_waited_for(stacked):
    with pytest.raises(UserError, match=r"no room in the memory that processes share: .*File too large.*--workers 0"):
        list(load(_NoRoom(stacked), range(2), Loader(workers=1, start_method="fork")))
