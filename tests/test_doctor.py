"""What `unveil doctor` finds on a machine."""

import resource
import shutil

import pytest

from unveil import cli, doctor


def rows() -> dict[str, tuple[bool, str]]:
    return {name: (good, text) for name, good, text in doctor.findings()}


def test_a_good_machine(capsys):
    found = rows()
    for name in ("torch", "torchvision ops", "FFmpeg", "decodes h264", "encodes h264", "cuda", "disk here"):
        assert name in found
    assert found["torchvision ops"][0]
    assert "libavcodec" in found["FFmpeg"][1]
    if all(good for good, _ in found.values()):
        cli.run(["doctor"])
    else:  # a small container
        with pytest.raises(SystemExit):
            cli.run(["doctor"])
    assert "decodes h264" in capsys.readouterr().out


def test_too_few_open_files_and_a_full_disk_are_found(monkeypatch, capsys):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (256, 4096))
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=2**20))
    found = rows()
    assert found["open files"][0] is False
    assert "ulimit -n 1024" in found["open files"][1]
    assert found["disk here"][0] is False
    if "shared memory" in found:
        assert found["shared memory"][0] is False
        assert "--shm-size" in found["shared memory"][1]
    with pytest.raises(SystemExit) as stop:
        cli.run(["doctor"])
    assert stop.value.code == 1
    assert "MISSING" in capsys.readouterr().out


def test_a_torchvision_of_another_torch_is_found(monkeypatch):
    import torchvision.ops

    def broken(*_):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    good, text = rows()["torchvision ops"]
    assert not good
    assert "nms does not exist" in text
    assert "Reinstall both" in text
