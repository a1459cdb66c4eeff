"""From the name of a study to its checked runs."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from benchmark.study.calling import Tools
from benchmark.study.checks import budget, problems, refuse
from benchmark.study.file import dumped, read_study, study_text
from benchmark.study.matrix import GROUPS, Matrix
from benchmark.study.options import like
from benchmark.study.pins import pinned
from benchmark.study.plan import NAME, write_plan
from benchmark.study.run import Run
from benchmark.study.spec import Study, too_few
from files.naming import refuse_overwriting
from files.writing import replacing

COPY = "study.yaml"
TRUST = "trust_pickle"  # the flag that lets a file run code
FUNCTION = "augment_function"  # the flag that names code


@dataclass(frozen=True)
class Prepared:
    """A study in its folder."""

    study: Study
    file: str
    out: Path
    root: Path
    tools: Tools
    folder: Path | None = None
    """Of the file."""
    is_copy: bool = False
    """Whether it was read from the copy in its folder, and is as that says."""

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """All runs. Raises ValueError for budgets that are not matched."""
        if not self._lengths:
            return self._as_stated
        scaled = {run.name: run for run in self._matrix(self._lengths).every_pretraining()}
        return tuple(scaled.get(run.name, run) for run in self._as_stated)

    def refuse(self) -> None:
        """Raise ValueError that lists what would fail."""
        refuse(self.file, problems(self.study, self._as_stated))
        _ = self.runs

    def write_plan(self) -> None:
        """Write what the report needs to know, and a copy of the study, to the folder, which is locked."""
        self.out.mkdir(parents=True, exist_ok=True)
        write_plan(self.out, self._matrix(self._lengths).plan(self.runs))
        for task in self.study.transfers:
            for file in self._matrix({}).group_files(task):
                copy = self.out / GROUPS / f"{task.name}.csv"
                copy.parent.mkdir(exist_ok=True)
                if file != copy:
                    with replacing(copy) as temporary:
                        shutil.copyfile(file, temporary)
        if not self.is_copy:
            with replacing(self.out / COPY) as temporary:
                temporary.write_text(study_text(self.study), encoding="utf-8")

    def fetch_weights(self) -> "Prepared":
        """Return the study with the weights that its arms name fetched: of the commits that its folder keeps, or now.

        To be called with the folder locked. Raises ValueError where some cannot be had.
        """
        pinned(self.out, self._names, fetch=True)
        return replace(self)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(arm.init for arm in self.study.arms if arm.init is not None)

    @cached_property
    def _pins(self) -> dict[str, Path]:
        return pinned(self.out, self._names, fetch=False)

    @cached_property
    def _as_stated(self) -> tuple[Run, ...]:
        """All runs with the lengths that the file states."""
        return self._matrix({}).runs()

    @cached_property
    def _lengths(self) -> dict[str, dict[str, float]]:
        try:
            return budget(self.study, self._as_stated, self.out)
        except ValueError as error:
            raise ValueError(f"{self.file}: nothing was run, since {error}") from error

    def _matrix(self, lengths: Mapping[str, dict[str, float]]) -> Matrix:
        return Matrix(
            self.study,
            out=self.out,
            root=self.root,
            tools=self.tools,
            lengths=lengths,
            beside=self.folder,
            pins=self._pins,
        )


def prepare(
    name: str,
    tools: Tools,
    *,
    studies: Path,
    out: Path | None = None,
    root: Path | None = None,
    seeds: tuple[int, ...] | None = None,
    trust_pickle: bool = False,
) -> Prepared:
    """Return the study that `name` is: a file, or the name of one in `studies`, with what overrides the file.

    `trust_pickle` is the command line's word that pickles which the file names may run.

    Raises FileNotFoundError or ValueError for a name that is none, for what is wrong in the file, and where the study's
    copy in its folder would be written over a file that is no such copy.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        path = studies / name / COPY
        if not path.is_file():
            there = sorted(other.parent.name for other in studies.glob(f"*/{COPY}"))
            listed = f"{', '.join(there)}{like(name, there)}"
            raise ValueError(f"no study is called {name!r}; there are: {listed} Or give a file, NAME.yaml.")
    study = read_study(path, tools)
    folder = out or Path("runs") / study.name
    text = path.read_text(encoding="utf-8", errors="replace")
    same_place = path.resolve() == (folder / COPY).resolve()
    # as a copy is written, by an earlier version too
    is_copy = same_place and dumped(yaml.safe_load(text)) == text and seeds in (None, study.seeds)
    if not is_copy and text != study_text(study):
        refuse_overwriting([folder / COPY, folder / NAME], [path])
    _check_trackers(study, path)
    if not trust_pickle:
        _check_trust(study, path)
    if seeds is not None:
        _check_seeds(study, seeds)
        study = study.model_copy(update={"seeds": seeds})
    return Prepared(study, path.name, folder, root or Path(study.data), tools, path.parent, is_copy)


def _options(study: Study) -> dict[str, Any]:
    """Return the flags of a study by their place in its file."""
    places = {f"arms.{arm.label}": arm.options for arm in study.arms}
    places |= {f"arms.{arm.label}.pretrain": arm.pretrain.options for arm in study.arms if arm.pretrain is not None}
    places |= {f"tokenizers.{tokenizer.name}": tokenizer.options for tokenizer in study.tokenizers}
    places |= {f"tasks.{task.name}": task.options for task in study.transfers}
    places |= {f"tasks.{task.name}.search": task.search.options for task in study.transfers if task.search is not None}
    return {f"{place}.{name}": value for place, options in places.items() for name, value in options.items()}


def _check_trust(study: Study, path: Path) -> None:
    """Raise ValueError where the file says of a pickle that it is trusted, or names a function: a file may be somebody
    else's."""
    for place, value in _options(study).items():
        if place.rpartition(".")[2] == FUNCTION and value is not None:
            raise ValueError(
                f"{path.name}: {place}: {value!r} names a function, which would run by the word of a file; where you "
                "trust its origin, give --trust-pickle as well."
            )
        if place.rpartition(".")[2] == TRUST and value:
            raise ValueError(
                f"{path.name}: {place}: a pickle can run any code while it is read, and the word of a file is not "
                "enough for that; where you trust its origin, give --trust-pickle as well."
            )


def _check_trackers(study: Study, path: Path) -> None:
    """Raise ValueError where the file names a class as its tracker: it would run by the word of a file."""
    for place, value in _options(study).items():
        if place.rpartition(".")[2] == "tracker" and ":" in str(value):
            raise ValueError(
                f"{path.name}: {place}: {value!r} names a class, which would run by the word of a file; a study takes "
                "wandb or mlflow, training tools take any on their command line."
            )


def _check_seeds(study: Study, seeds: tuple[int, ...]) -> None:
    given = " ".join(map(str, seeds))
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"--seeds {given}: give one or more different seeds, none below 0.")
    for task in study.transfers:
        if task.search is not None and task.search.seed in seeds:
            raise ValueError(f"--seeds {given}: the search of {task.name} takes {task.search.seed}; give others.")
    search = study.pretrain_search
    if search is not None and study.pretrain_seeds == "tied" and search.seed in seeds:
        raise ValueError(f"--seeds {given}: pretrain_search takes {search.seed}; give others.")
    searched = any(task.search is not None for task in study.transfers)
    if searched and study.pretrain_seeds == "tied" and seeds[0] != study.seeds[0]:
        first = study.seeds[0]
        wanted = " ".join(map(str, (first, *(seed for seed in seeds if seed != first))))
        raise ValueError(
            f"--seeds {given}: learning rates are searched from the pre-trainings of seed {first}; give it first: "
            f"--seeds {wanted}"
        )
    if (said := too_few(study, seeds)) is not None:
        raise ValueError(f"--seeds {given}: {said}.")
