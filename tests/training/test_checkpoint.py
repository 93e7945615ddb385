"""Checkpoints survive what happens to files."""

import pickle

import pytest
import torch
from torch import nn

from unveil.errors import UserError
from unveil.layers import channels_last
from unveil.storage import replacing
from unveil.training import checkpoint
from unveil.training.guards import writing


@pytest.fixture
def trained():
    """(network, optimiser) after a step: there are moments to keep."""
    network = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    return network, optimizer


@pytest.fixture
def saved(tmp_path, trained):
    """A function that saves the state as that of a step."""
    return lambda step, keep=2: checkpoint.save(tmp_path, checkpoint.state_of(*trained, None, step), keep)


def test_the_last_ones_are_kept_and_the_newest_is_read(tmp_path, trained, saved):
    for step in (1, 2, 30):
        saved(step)
    assert [path.name for path in checkpoint.files(tmp_path)] == ["step-000000030.pt", "step-000000002.pt"]
    state = checkpoint.latest(tmp_path, trained[0], pytest.fail)
    assert state["step"] == 30
    saved(31, keep=1)
    assert [path.name for path in checkpoint.files(tmp_path)] == ["step-000000031.pt"]


def test_a_state_is_put_back_whole(tmp_path, trained, saved):
    saved(7)
    network, optimizer = trained
    other = nn.Linear(3, 2)
    its = torch.optim.AdamW(other.parameters(), lr=0.5)
    state = checkpoint.latest(tmp_path, other, pytest.fail)
    assert checkpoint.restore(state, other, its, None) == 7
    for a, b in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[a][name], its.state[b][name])


def convolved(channels_last_: bool, fused: bool):
    """(network, optimiser, a step) with the same weights and gradients, in either order in memory."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, 4, (2, 5))
    if channels_last_:
        channels_last(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1, fused=fused)
    x = torch.randn(2, 3, 7, 8)

    def step() -> None:
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()

    return network, optimizer, step


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("wrote", [True, False])
def test_a_state_fits_whatever_order_its_writer_had_in_memory(tmp_path, wrote, fused):
    network, optimizer, step = convolved(wrote, fused)
    step()
    checkpoint.save(tmp_path, checkpoint.state_of(network, optimizer, None, 1), keep=1)
    step()
    other, its, its_step = convolved(not wrote, fused)
    checkpoint.restore(checkpoint.latest(tmp_path, other, pytest.fail), other, its, None)
    assert its.state[other.weight]["exp_avg"].stride() == other.weight.stride() != network.weight.stride()
    its_step()
    torch.testing.assert_close(other.weight, network.weight, rtol=1e-5, atol=1e-6)


def foreign(path, good):
    torch.save({"state_dict": {}}, path)


def other_network(path, good):
    torch.save({**torch.load(good, weights_only=True), "objective": {"weight": torch.zeros(9)}}, path)


def older(path, good):
    torch.save({**torch.load(good, weights_only=True), "format": 1}, path)


def truncated(path, good):
    path.write_bytes(good.read_bytes()[:-100])


def empty(path, good):
    path.write_bytes(b"")


def folder(path, good):
    path.mkdir()


@pytest.mark.parametrize("spoil", [foreign, other_network, older, truncated, empty, folder])
def test_one_that_cannot_be_used_is_told_of_and_the_one_before_is(tmp_path, trained, saved, spoil):
    good = saved(1)
    spoil(checkpoint.folder(tmp_path) / "step-000000002.pt", good)
    told = []
    assert checkpoint.latest(tmp_path, trained[0], told.append)["step"] == 1
    assert len(told) == 1
    assert "step-000000002.pt cannot be used" in told[0]


def test_code_in_a_checkpoint_is_not_run(tmp_path, trained, capsys):
    class Evil:
        def __reduce__(self):
            return (print, ("run!",))

    path = checkpoint.folder(tmp_path) / "step-000000001.pt"
    path.parent.mkdir()
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    told = []
    assert checkpoint.latest(tmp_path, trained[0], told.append) is None
    assert "none of the 1 checkpoints" in told[-1]
    assert capsys.readouterr().out == ""


def test_nothing_there(tmp_path, trained):
    assert checkpoint.latest(tmp_path, trained[0], pytest.fail) is None


def test_a_folder_that_cannot_be_written_says_so(tmp_path, saved):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="could not be written"), writing(tmp_path):
        saved(1)


def test_replacing_leaves_the_old_file_when_writing_fails(tmp_path):
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(RuntimeError), replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_what_a_killed_writer_leaves_is_removed(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in (".run.json.123.tmp", "checkpoints/.step-000000001.pt.123.tmp", "run.json"):
        (tmp_path / name).write_text("")
    checkpoint.clean(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoints", "run.json"]


def test_the_best_step_is_known_again_when_a_run_goes_on(tmp_path):
    best = checkpoint.Best(tmp_path, 0)
    assert not best.better({"step": 1, "loss": 1.0, "rankme": 9.0})
    assert best.better({"step": 2, "knn": 0.5})
    assert not best.better({"step": 3, "knn": 0.5})
    (tmp_path / "log.jsonl").write_text('{"step": 2, "knn": 0.5}\n{"step": 4, "knn": 0.9}\n')
    again = checkpoint.Best(tmp_path, 3)
    assert (again.step, again.value) == (2, 0.5)
    assert again.better({"step": 4, "knn": 0.6})
