"""Work in processes that hang, crash, are killed, raise."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

import pytest

from unveil.data import processes
from unveil.data.processes import Failed, each
from unveil.errors import UserError


def act(item):
    what, value = item
    if what == "hang":
        Path(value).write_text(str(os.getpid()))
        time.sleep(1000)
    if what == "crash":
        ctypes.string_at(0)
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "exit":
        os._exit(3)
    if what == "raise":
        raise ValueError(value)
    if what == "user":
        raise UserError(value)
    if what == "memory":
        raise MemoryError
    if what == "big":
        return "x" * value
    return value


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie of the fork server is dead as well.
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z" if Path("/proc").is_dir() else True


def ended(pid: int, seconds: float = 10) -> bool:
    limit = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < limit:
        time.sleep(0.02)
    return not alive(pid)


def test_every_item_has_its_answer_whatever_happens_to_the_others(tmp_path):
    items = [("fine", i) for i in range(20)]
    items[3:3] = [("crash", 0), ("hang", str(tmp_path / "pid")), ("kill", 0), ("exit", 0), ("raise", "broken")]
    items += [("user", "a sentence"), ("memory", 0), ("big", 1_000_000), ("crash", 1)]
    answers = dict(each(act, items, workers=2, limit=lambda item: 1.5 if item[0] == "hang" else 60))
    assert len(answers) == len(items)
    for (what, value), answer in answers.items():
        if what == "fine":
            assert answer == value
        elif what == "big":
            assert len(answer) == value
        else:
            assert isinstance(answer, Failed)
    assert "SIGSEGV" in answers["crash", 0].error
    assert "SIGKILL" in answers["kill", 0].error
    assert "status 3" in answers["exit", 0].error
    assert "1.5 s" in answers["hang", str(tmp_path / "pid")].error
    assert answers["raise", "broken"].error == "ValueError: broken"
    assert answers["user", "a sentence"].error == "a sentence"
    assert "MemoryError" in answers["memory", 0].error
    assert ended(int((tmp_path / "pid").read_text()))


def test_closing_kills_what_hangs(tmp_path):
    answers = each(act, [("hang", str(tmp_path / "pid")), ("fine", 1)], workers=2, limit=lambda item: 1000)
    assert next(answers) == (("fine", 1), 1)
    while not (tmp_path / "pid").exists():
        time.sleep(0.01)
    began = time.monotonic()
    answers.close()
    assert ended(int((tmp_path / "pid").read_text()))
    assert time.monotonic() - began < 5


def test_nothing_to_do_starts_nothing(monkeypatch):
    monkeypatch.setattr(processes, "_Worker", None)
    assert list(each(act, [], workers=2, limit=lambda item: 1)) == []


def test_workers_that_do_not_start_are_an_error_not_a_loop(monkeypatch):
    monkeypatch.setattr(processes, "_serve", os._exit)  # its argument is no status: the process fails at once
    with pytest.raises(UserError, match="no process can be started"):
        list(each(act, [("fine", 1)], workers=1, limit=lambda item: 1))
