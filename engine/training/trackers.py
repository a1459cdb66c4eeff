"""Trackers beside metrics.csv and TensorBoard: Weights & Biases, MLflow, or any logger of Lightning Fabric's interface.

A resumed run repeats the steps after its checkpoint with equal values; they are not sent again, since what was sent to
a service cannot be cut off: OUT/tracker.json keeps the last step that was sent. A tracker that fails costs the run
nothing but the tracker.
"""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from engine.config import as_json
from engine.records.metrics_file import CSV_NAME
from files.parsing import read_json
from files.typed import from_json
from files.writing import replacing

NAME = "tracker.json"
PROJECT = "mae-transfer"
NONE = "none"


class Logger(Protocol):
    """What is asked of a logger; those of lightning_fabric.loggers have it, and Lightning's."""

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        """Take the configuration, once."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take the numbers of a step."""

    def finalize(self, status: str) -> None:
        """Take the end of the run: `success`, or `failed`."""


@dataclass(frozen=True)
class Sent:
    """What OUT/tracker.json holds."""

    id: str | None = None
    """What the service calls the run."""
    configured: bool = False
    """Whether it has the configuration."""
    step: int = -1
    """The last step that was sent."""
    names: tuple[str, ...] = ()
    """Its numbers that were."""


class Tracker:
    """A logger that is told every number once, whatever is interrupted and resumed."""

    def __init__(self, logger: Logger, out: Path, sent: Sent, say: Callable[[str], None]) -> None:
        """`sent` is what an earlier session has told it."""
        self._logger: Logger | None = logger
        self._path, self._sent, self._say = out / NAME, sent, say

    def begin(self, config: dict[str, Any]) -> None:
        """Send the configuration, once."""
        if not self._sent.configured:
            self._send(lambda logger: logger.log_hyperparams(config), replace(self._sent, configured=True))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step, unless they were sent before."""
        before = self._sent.names if step == self._sent.step else ()
        new = {name: float(value) for name, value in values.items() if step >= self._sent.step and name not in before}
        if new:
            told = replace(self._sent, step=step, names=(*before, *new))
            self._send(lambda logger: logger.log_metrics(new, step=step), told)

    def close(self, status: str) -> None:
        """Say that the run has ended."""
        self._send(lambda logger: logger.finalize("success" if status == "completed" else "failed"), self._sent)

    def _send(self, act: Callable[[Logger], None], told: Sent) -> None:
        """Tell the logger, and keep what it was told; what fails, a full disk too, ends the tracker alone."""
        if self._logger is None:
            return
        try:
            with suppress(NotImplementedError):  # a logger of numbers alone
                act(self._logger)
            if told != self._sent:
                with replacing(self._path) as temporary:
                    temporary.write_text(json.dumps(as_json(told)) + "\n", encoding="utf-8")
            self._sent = told
        except Exception as error:  # of a service: the run goes on without it
            self._say(
                f"warning: the tracker gets no more: {type(error).__name__}: {error}; {CSV_NAME} has all numbers."
            )
            self._logger = None


def check_tracker(kind: str) -> None:
    """Raise ValueError where `--tracker` names what is not installed, or means nothing."""
    module, _, name = kind.partition(":")
    if kind != NONE and kind not in _LOGGERS and not (module and name.isidentifier()):
        raise ValueError(f"--tracker {kind}: give none, {', '.join(_LOGGERS)}, or module:Class of a logger.")
    try:
        found = None if kind == NONE else import_module(module)
    except ImportError as error:
        raise ValueError(f"--tracker {kind}: {error}; install it (pip install {module.split('.')[0]}).") from error
    if name and not hasattr(found, name):
        raise ValueError(f"--tracker {kind}: {module} has no {name}.")


def open_tracker(kind: str, out: Path, run_id: str, config: Any, say: Callable[[str], None] = print) -> Tracker | None:
    """Return the tracker that `--tracker` names, which has the configuration, None for `none`.

    `wandb`, `mlflow`, or `module:Class`, which gets OUT/tracker as its folder. Raises as `check_tracker`. One that
    cannot begin, as without a network, is said and left out.
    """
    if kind == NONE:
        return None
    check_tracker(kind)
    sent = _sent(out / NAME)
    try:
        logger, name = _LOGGERS.get(kind, partial(_of_class, kind))(out, run_id, sent.id)
    except Exception as error:  # of a service: the run goes on without it
        say(f"warning: no tracker: {type(error).__name__}: {error}; {CSV_NAME} has all numbers.")
        return None
    tracker = Tracker(logger, out, replace(sent, id=name), say)
    tracker.begin(as_json(config))
    return tracker


def _sent(path: Path) -> Sent:
    """Return what was kept of the tracker; where it is damaged it is begun anew, so that numbers may be sent twice."""
    try:
        return from_json(Sent, read_json(path)) if path.is_file() else Sent()
    except ValueError:
        return Sent()


def _of_class(kind: str, out: Path, run_id: str, known: str | None) -> tuple[Logger, str]:
    module, _, name = kind.partition(":")
    found = getattr(import_module(module), name)
    # Lightning's loggers take save_dir, those of Fabric root_dir
    folder = "root_dir" if "root_dir" in inspect.signature(found).parameters else "save_dir"
    return found(**{folder: str(out / "tracker")}), run_id


class _Wandb:
    """Weights & Biases: a run of the same id is continued. Project and account are those of its own variables."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._run.config.update(params, allow_val_change=True)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "success" else 1)


def _wandb(out: Path, run_id: str, known: str | None) -> tuple[Logger, str]:
    wandb: Any = import_module("wandb")
    name = known or f"{run_id}-{out.name}"
    project = {} if os.environ.get("WANDB_PROJECT") else {"project": PROJECT}
    return _Wandb(wandb.init(id=name, name=out.name, dir=str(out), resume="allow", **project)), name


class _MLflow:
    """MLflow, at the place that its own variables name; a run that was begun is continued."""

    def __init__(self, client: Any, run: str) -> None:
        self._client, self._run = client, run

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._client.log_dict(self._run, params, "config.json")

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._run, name, value, step=step)

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._run, "FINISHED" if status == "success" else "FAILED")


def _mlflow(out: Path, run_id: str, known: str | None) -> tuple[Logger, str]:
    client: Any = import_module("mlflow").MlflowClient()
    if known is None:
        found = client.get_experiment_by_name(PROJECT)
        experiment = found.experiment_id if found is not None else client.create_experiment(PROJECT)
        known = client.create_run(experiment, run_name=out.name).info.run_id
    return _MLflow(client, known), known


# from the folder of the run, its id in records, and what the service called it before
_LOGGERS: dict[str, Callable[[Path, str, str | None], tuple[Logger, str]]] = {"wandb": _wandb, "mlflow": _mlflow}
