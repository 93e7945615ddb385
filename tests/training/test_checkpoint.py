"""Checkpoints survive what happens to files."""

import pytest
import torch

from unveil.errors import UserError
from unveil.run import replacing
from unveil.training import checkpoint


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    for step in (1, 2, 30):
        checkpoint.save(tmp_path, step, {"step": step, "w": torch.ones(2) * step})
    assert [path.name for path in checkpoint.files(tmp_path)] == ["step-000000030.pt", "step-000000002.pt"]
    state = checkpoint.latest(tmp_path, pytest.fail)
    assert state["step"] == 30
    assert state["w"].tolist() == [30, 30]


def test_a_truncated_one_is_told_of_and_the_one_before_is_used(tmp_path):
    checkpoint.save(tmp_path, 1, {"step": 1})
    newest = checkpoint.save(tmp_path, 2, {"step": 2, "w": torch.zeros(1000)})
    newest.write_bytes(newest.read_bytes()[:100])
    told = []
    assert checkpoint.latest(tmp_path, told.append)["step"] == 1
    assert "step-000000002.pt cannot be read" in told[0]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return (print, ("run!",))

    path = checkpoint.folder(tmp_path) / "step-000000001.pt"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    assert checkpoint.latest(tmp_path, lambda text: None) is None


def test_nothing_there(tmp_path):
    assert checkpoint.latest(tmp_path, pytest.fail) is None


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="could not be written"):
        checkpoint.save(tmp_path, 1, {"step": 1})


def test_replacing_leaves_the_old_file_when_writing_fails(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
