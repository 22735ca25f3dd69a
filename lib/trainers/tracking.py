"""MLflow tracking, where it is installed and asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EXPERIMENT = "combined"


@dataclass
class Tracker:
    """Hands a run's figures to MLflow; does nothing when it is not asked for.

    Args:
        uri: MLflow's store; empty: no tracking.
    """

    uri: str = ""
    _client: Any = None

    @staticmethod
    def of(choice: Any, folder: Path) -> Tracker:
        """From a request's `tracking`; the store is a file in the run's folder.

        Raises:
            ValueError: MLflow is asked for and not installed, or an unknown choice.
        """
        if choice in (None, "", "None"):
            return Tracker()
        if choice != "mlflow" or find_spec("mlflow") is None:
            raise ValueError(
                f"tracking: expected None, or mlflow where it is installed; found {choice!r}"
            )
        # MLflow's file store is refused by its newer versions; a database is not.
        return Tracker(f"sqlite:///{folder / 'mlflow.db'}")

    def __call__(self, step: int, figures: Mapping[str, float]) -> None:
        """Log one step."""
        if not self.uri:
            return
        if self._client is None:
            self._client = import_module("mlflow")
            self._client.set_tracking_uri(self.uri)
            self._client.set_experiment(EXPERIMENT)
            self._client.start_run()
        self._client.log_metrics({metric_name(k): v for k, v in figures.items()}, step=step)

    def close(self, figures: Mapping[str, float], step: int) -> None:
        """Log the last validation and end the run."""
        if self.uri:
            self(step, figures)
            self._client.end_run()


def metric_name(key: str) -> str:
    """A TensorBoard key as a metric of MLflow, which cannot hold both `a` and `a/b`."""
    return key.replace("/", ".")
