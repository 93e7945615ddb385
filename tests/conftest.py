"""Shared by all tests: media writers are importable, and every test runs on one thread."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "data"))
torch.set_num_threads(1)
