"""The verbs: what `unveil …` does, as typed functions, and the Python API.

Positional parameters are positional on the command line, keyword-only ones are flags; the docstrings are the help. `data`
is always files: a folder, a media file or a labels .csv. Nothing heavy is imported before a verb runs.
"""

from unveil.flags import build
from unveil.verbs.answers import embed, evaluate, predict, report, search
from unveil.verbs.exchange import export, import_
from unveil.verbs.files import builtin, check, prepare
from unveil.verbs.learning import finetune, pretrain, train

__all__ = [
    "build", "builtin", "check", "embed", "evaluate", "export", "finetune", "import_", "predict", "prepare", "pretrain", "report",
    "search", "train",
]  # fmt: skip
