"""Shared by all tests: media writers are importable, and every test runs on one thread."""

import os
import sys
from pathlib import Path

import torch
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent / "data"))
torch.set_num_threads(1)

# On CI the same examples every time: a change is judged by its own tests, not by a draw. Elsewhere they are new each run.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("here", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "here")
