"""What tools, planner, studies and tables know of a task: one declaration, in the task's folder.

`mae_transfer/tasks.py` is the one table of them. Nothing here imports torch, so that commands which read records alone
answer at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import FeatureProbes, with_defaults
from files.typed import from_json
from metrics.metric import Metric
from metrics.probed import PROBED
from metrics.result_lines import Lines, Resampler

if TYPE_CHECKING:
    from engine.memory.plan import Plannable
    from engine.records.record import RunRecord
    from engine.task import Task

Recipes = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What runs of a task are compared by: the metrics of one or more lines of a table."""

    kind: str
    """What tables and exports call the kind of result; usually the task's name."""
    label: str
    """Of the line where a study does not name it."""
    apart: str = ""
    """What follows the label, or the study's name: a study runs k-NN and linear classifiers as one task."""
    metrics: tuple[Metric, ...]
    """Those that a table shows; the verdict is about the first."""
    resampler: Callable[[Lines], Resampler] | None = None
    """From the lines of a results file to the metrics on resamples of the images; None has intervals over seeds."""
    class_score: str | None = None
    """Column of per_class.csv that the page shows; None where the task leaves no such file."""

    @property
    def primary(self) -> Metric:
        """The metric that the verdict is about."""
        return self.metrics[0]

    def metric(self, name: str) -> Metric:
        """Return a metric by its name. Raises KeyError for one that is not compared."""
        return next(metric for metric in self.metrics if metric.name == name)


Config = Mapping[str, Any]  # of a record, as JSON


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A task."""

    name: str
    """What records call it."""
    tool: str
    """The command that trains it: a module of tools/."""
    config: type[Any]
    """Dataclass of its configuration."""
    recipes: Recipes
    """name -> function that returns a configuration; empty for what has none."""
    module: str | None = None
    """Has `build_task(config, data=Path, init=InitialWeights | None)`, and is imported when a task is built; None for
    what is not rebuilt from its record (probes)."""
    trained: str | None = None
    """Has `trained_model(config, record=, source=, normalisation=)`, which makes an engine.runs.trained.TrainedModel of
    what a run's folder says alone; None for what says nothing of an image."""
    adopt: Callable[..., Any] | None = None
    """`adopt(config, init=, data=, out=, resume=)` returns the configuration with what initial weights or images decide
    of it; None takes the architecture of the weights where that is declared."""
    follow: Callable[[Any, Any], Any] | None = None
    """`follow(config, recipe)` returns the configuration with what follows from what was changed of the recipe's; None
    where nothing does."""
    at_recipes_depth: Callable[["Config", str], "Config"] | None = None
    """From a recorded configuration and its recipe's name to the one with what follows from the ViT's depth as it is at
    the recipe's depth; what is not as the depth has it stays. None where nothing follows from the depth."""
    plan: Callable[..., Callable[[], "Plannable"]] | None = None
    """`plan(config, classes=int, masks=bool)` reads what it needs and returns what makes the model and its loss, to be
    called where tensors are fake."""
    classes: int = 0
    """Of the head, where a plan is not told: of the data set that the published recipes are for."""
    least_batch: int = 1
    """Fewest images per device that a training step can take; 2 where it has a batch norm."""
    scores: tuple[Scores, ...]
    """What its runs are compared by; one, or several by protocol."""
    scored_as: Callable[[Config, Sequence[str]], tuple[Scores, str]] | None = None
    """From a run's configuration and the names of its metrics to one of `scores` and what its line adds to the label
    (a protocol); None takes the only one."""
    transfers: bool = True
    """Whether it takes initial weights that a study compares; pre-training makes them."""
    reads_tokenizer: bool = False
    """Whether `build_task` takes `trust_tokenizer`, the command line's word that a tokenizer's pickles may run."""

    stated: tuple[str, ...] = ()
    """Switches that `build_task` finds out from the data of a new run, and takes by these names from what the record
    states (`extra`) where a run is opened again: its data may be others."""
    augments: bool = False
    """Whether its training data apply the run's `augment_function` (engine.augment)."""

    def build(self, config: Any, **given: Any) -> "Task":
        """Return the task that the configuration is of, on `data=`, from `init=`."""
        assert self.module is not None
        task: Task = import_module(self.module).build_task(config, **given)
        return task

    def followed(self, config: Any, recipe: str) -> Any:
        """Return the configuration with what follows from what was changed of that of the recipe."""
        return config if self.follow is None else self.follow(config, self.recipes[recipe]())

    @property
    def primary(self) -> Metric:
        """The metric that runs lead with."""
        return self.scores[0].primary

    def scored(self, config: Config, metrics: Sequence[str]) -> tuple[Scores, str]:
        """Return what a run is compared by, and what its line adds to the label."""
        return (self.scores[0], "") if self.scored_as is None else self.scored_as(config, metrics)

    def faults(self, metrics: Mapping[str, float]) -> list[str]:
        """Return a line for each metric with a value that no run can have written.

        One that is declared nowhere is judged as the first of `scores`.
        """
        probed = PROBED if issubclass(self.config, FeatureProbes) else ()
        known = {metric.name: metric for metrics in (probed, *(s.metrics for s in self.scores)) for metric in metrics}
        found = {name: known.get(name, self.primary).fault(value) for name, value in metrics.items()}
        return [f"{name}: {fault}" for name, fault in found.items() if fault is not None]


TaskTable = Mapping[str, TaskSpec]


class MissingHostError(ImportError, ValueError):
    """A library that one task is built on is not installed; the others need none of it."""

    def __init__(self, what: str, page: str = "docs/releasing.md") -> None:
        """`what` says which, and for what."""
        super().__init__(
            f"{what}. In the repository `make setup` installs it; beside an installed wheel it is put in by hand "
            f"({page})."
        )


def check_metrics(folder: Path, record: "RunRecord", tasks: TaskTable) -> None:
    """Raise ValueError that names the record in `folder` where it holds metrics that no run can have written."""
    spec = tasks.get(record.task)
    at = {"metrics": record.metrics} | {f"evaluations[{i}]": e.metrics for i, e in enumerate(record.evaluations)}
    if spec is not None and (faults := [f"{place}.{line}" for place, each in at.items() for line in spec.faults(each)]):
        raise ValueError(f"{folder / 'record.json'}: not a readable record ({'; '.join(faults)}).")


RESULT = "leading"  # of a probe's record: which outcome its top1 is, which is no setting


def with_later_fields(tasks: TaskTable, task: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the recorded configuration of a task with the defaults of the fields that came after it.

    As it is where the task is none of ours, or where the configuration is not readable as one of today.
    """
    if task not in tasks:
        return config
    try:
        today = from_json(tasks[task].config, {name: value for name, value in config.items() if name != RESULT})
    except ValueError:
        return config
    return with_defaults(config, today)


def at_recipes_depth(tasks: TaskTable, task: str, config: Config, recipe: str) -> Config:
    """Return a recorded configuration as `TaskSpec.at_recipes_depth`; as it is where the task is none of ours."""
    spec = tasks.get(task)
    return config if spec is None or spec.at_recipes_depth is None else spec.at_recipes_depth(config, recipe)


def of_tool(tasks: TaskTable, tool: str) -> tuple[TaskSpec, ...]:
    """Return the tasks that a tool trains."""
    return tuple(spec for spec in tasks.values() if spec.tool == tool)


def recipes_of(specs: Sequence[TaskSpec]) -> Recipes:
    """Return the recipes of some tasks."""
    return {name: recipe for spec in specs for name, recipe in spec.recipes.items()}


def spec_for(specs: Sequence[TaskSpec], config: Any) -> TaskSpec:
    """Return the task that a configuration is of."""
    return next(spec for spec in specs if type(config) is spec.config)
