"""Trackers beside metrics.csv and TensorBoard: Weights & Biases, MLflow, or any logger of Lightning Fabric's interface.

A resumed run repeats the steps after its checkpoint with equal values; they are not sent again, since what was sent to
a service cannot be cut off: OUT/tracker.json keeps the last step that was sent. A tracker that fails costs the run
nothing but the tracker.
"""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from engine.config import as_json
from files.parsing import read_json
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


class Tracker:
    """A logger that is told every step once, whatever is interrupted and resumed."""

    def __init__(self, logger: Logger, out: Path, state: dict[str, Any], say: Callable[[str], None]) -> None:
        """`state` is what OUT/tracker.json holds: `step`, the last that was sent, and what the logger keeps."""
        self._logger: Logger | None = logger
        self._path, self._state, self._say = out / NAME, state, say

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step, unless they were sent before."""
        last = self._state.get("step", -1)
        sent = set(self._state.get("names", [])) if step == last else set()
        names = [name for name in values if step >= last and name not in sent]
        if self._logger is None or not names:
            return
        self._try(lambda logger: logger.log_metrics({name: float(values[name]) for name in names}, step=step))
        self._state |= {"step": step, "names": sorted({*sent, *names})}
        self._write()

    def close(self, status: str) -> None:
        """Say that the run has ended."""
        self._try(lambda logger: logger.finalize("success" if status == "completed" else "failed"))

    def begin(self, config: dict[str, Any]) -> None:
        """Send the configuration, once."""
        if "config" not in self._state:
            self._try(lambda logger: logger.log_hyperparams(config))
            self._state["config"] = True
            self._write()

    def _write(self) -> None:
        with replacing(self._path) as temporary:
            temporary.write_text(json.dumps(self._state) + "\n", encoding="utf-8")

    def _try(self, act: Callable[[Logger], None]) -> None:
        if self._logger is None:
            return
        try:
            act(self._logger)
        except NotImplementedError:  # a logger of numbers alone
            pass
        except Exception as error:  # of a service: the run goes on without it
            self._say(
                f"warning: the tracker gets no more: {type(error).__name__}: {error}; metrics.csv has all numbers."
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
    state = _state(out / NAME)
    try:
        logger = _LOGGERS[kind](out, run_id, state) if kind in _LOGGERS else _of_class(kind, out)
    except Exception as error:  # of a service: the run goes on without it
        say(f"warning: no tracker: {type(error).__name__}: {error}; metrics.csv has all numbers.")
        return None
    tracker = Tracker(logger, out, state, say)
    tracker.begin(as_json(config))
    return tracker


def _state(path: Path) -> dict[str, Any]:
    """Return what was kept of the tracker; damaged, it is begun anew, so that steps may be sent twice."""
    try:
        values = read_json(path) if path.is_file() else {}
    except ValueError:
        return {}
    return values if isinstance(values, dict) and isinstance(values.get("step", 0), int) else {}


def _of_class(kind: str, out: Path) -> Logger:
    module, _, name = kind.partition(":")
    found = getattr(import_module(module), name)
    # Lightning's loggers take save_dir, those of Fabric root_dir
    folder = "root_dir" if "root_dir" in inspect.signature(found).parameters else "save_dir"
    logger: Logger = found(**{folder: str(out / "tracker")})
    return logger


class _Wandb:
    """Weights & Biases: a run of the same id is continued. Project and account are those of its own variables."""

    def __init__(self, out: Path, run_id: str, state: dict[str, Any]) -> None:
        wandb: Any = import_module("wandb")
        self._id = state.setdefault("id", f"{run_id}-{out.name}")
        self._run = wandb.init(id=self._id, name=out.name, dir=str(out), resume="allow", **_project())

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._run.config.update(params, allow_val_change=True)

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        self._run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        self._run.finish(exit_code=0 if status == "success" else 1)


def _project() -> dict[str, str]:
    return {} if os.environ.get("WANDB_PROJECT") else {"project": PROJECT}


class _MLflow:
    """MLflow, at the place that its own variables name; a run that was begun is continued."""

    def __init__(self, out: Path, run_id: str, state: dict[str, Any]) -> None:
        mlflow: Any = import_module("mlflow")
        self._client = mlflow.MlflowClient()
        if "id" not in state:
            found = self._client.get_experiment_by_name(PROJECT)
            experiment = found.experiment_id if found is not None else self._client.create_experiment(PROJECT)
            state["id"] = self._client.create_run(experiment, run_name=out.name).info.run_id
        self._id = state["id"]

    def log_hyperparams(self, params: dict[str, Any]) -> None:
        self._client.log_dict(self._id, params, "config.json")

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._client.log_metric(self._id, name, value, step=step)

    def finalize(self, status: str) -> None:
        self._client.set_terminated(self._id, "FINISHED" if status == "success" else "FAILED")


_LOGGERS: dict[str, Callable[[Path, str, dict[str, Any]], Logger]] = {"wandb": _Wandb, "mlflow": _MLflow}
