"""Loggers besides log.jsonl; W&B and MLflow are tested where the extra `loggers` is installed."""

import pytest

from unveil.errors import UserError
from unveil.training.log import make_loggers

WRITES = {"tensorboard": "events*", "wandb": "*.wandb", "mlflow": "mlflow.db"}


@pytest.mark.filterwarnings("ignore")  # the loggers' own
@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboard"), ("wandb", "wandb"), ("mlflow", "mlflow")]
)
def test_numbers_reach_the_logger(tmp_path, monkeypatch, name, package):
    pytest.importorskip(package)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (logger,) = make_loggers([name], tmp_path)
    logger.log_metrics({"loss": 1.5}, step=1)
    logger.finalize("success")
    if name == "wandb":
        logger.experiment.finish()
    assert list(tmp_path.rglob(WRITES[name]))


def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch):
    from pytorch_lightning import loggers

    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'wandb'")

    monkeypatch.setattr(loggers, "WandbLogger", missing)
    with pytest.raises(UserError, match=r"unveil\[loggers\]"):
        make_loggers(["wandb"], tmp_path)
    with pytest.raises(UserError, match="unknown"):
        make_loggers(["paper"], tmp_path)
