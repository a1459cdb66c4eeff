"""Pre-trainings of a study: what makes the weights of its arms, and the short runs that choose their learning rates."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backbones.weights.declaration import BACKBONE_NAME
from benchmark.study.arms import PROBE, Arm, Pretraining
from benchmark.study.calling import LENGTH_FLAGS, Tools
from benchmark.study.calls import Calls, Options
from benchmark.study.plan import Phase
from benchmark.study.run import Run, checked
from benchmark.study.search import LR_FLAG, Search
from benchmark.study.spec import Study, pretraining_seeds

PROBED = "linear_features"  # folder of the record of a probe that judges a pre-training


class Pretrainings(Calls):
    """The runs that make weights."""

    def __init__(self, study: Study, *, out: Path, root: Path, tools: Tools, lengths: Mapping[str, Options]) -> None:
        """`root`: where relative paths start; `lengths`: of pre-trainings, by arm, where they are scaled."""
        super().__init__(study, out=out, root=root, tools=tools)
        self.lengths = lengths

    def short_pretrainings(self) -> Iterator[Run]:
        """Yield what chooses the learning rates of pre-trainings."""
        arms = [arm for arm in self.study.arms if arm.pretrain is not None]
        if self.study.pretrain_search is not None:
            searched = [arm for arm in arms if self._searched_with(arm) is arm]
            yield from (self._held_out_images(arm) for arm in searched)
            yield from (self._short(arm, lr) for arm in searched for lr in _grid(arm))
            yield from (self._judged(arm, lr) for arm in searched for lr in _grid(arm))

    def pretrainings(self, seed: int | None) -> Iterator[Run]:
        """Yield the pre-trainings of one seed; None where each arm has one alone."""
        yield from (self._pretrain(arm, seed) for arm in self.study.arms if arm.pretrain is not None)

    def every_pretraining(self) -> Iterator[Run]:
        """Yield the pre-trainings of all seeds."""
        yield from (run for seed in pretraining_seeds(self.study) for run in self.pretrainings(seed))

    def _pretrain(self, arm: Arm, seed: int | None) -> Run:
        assert arm.pretrain is not None
        options: Options = arm.pretrain.options
        if arm.label in self.lengths:
            options = without(options, LENGTH_FLAGS) | {**self.lengths[arm.label]}
        if seed is not None:
            options = {**options, "seed": seed}
        name = pretrain_name(arm, seed)
        run = self.pretrained(name, arm.pretrain, options, phase="pretrain", arm=arm)
        return checked(replace(run, pretrain_seed=seed, search=self._choice(arm)))

    def pretrained(
        self, name: str, given: Pretraining, options: Options, *, phase: Phase, arm: Arm | None = None
    ) -> Run:
        """Return a run of tools/pretrain.py."""
        data, out = self.place(given.data), self.out / name
        placed, files = self.placed("pretrain", given.recipe, options)
        label = {} if arm is None else {"arm": arm.label}
        return self.call(
            name,
            "pretrain",
            given.recipe,
            {"data": data, **label, **placed},
            out=out,
            phase=phase,
            kind=f"pretrain {arm.label}" if arm is not None else f"{phase} {name}",
            arm=None if arm is None else arm.label,
            data=data,
            inputs=self.not_made(data, *files),
            needs=self.made_by(data, *files),
            seconds=seconds(given.hours),
        )

    def _held_out_images(self, arm: Arm) -> Run:
        assert arm.pretrain is not None and self.study.pretrain_search is not None
        data = self.place(arm.pretrain.data)
        return self.call(
            f"hold-out-pretrain-{arm.label}",
            "hold_out",
            None,
            {"tool": "train_cls", "data": data, "share": self.study.pretrain_search.hold_out},
            out=self._images(arm),
            phase="data",
            kind="hold_out",
            inputs=self.not_made(data),
            needs=self.made_by(data),
            seconds=5.0,
        )

    def _images(self, arm: Arm) -> Path:
        return self.out / "held-out" / f"pretrain-{arm.label}"

    def _short(self, arm: Arm, lr: float) -> Run:
        """Return a short pre-training at one learning rate."""
        search = self.study.pretrain_search
        assert arm.pretrain is not None and search is not None
        options = without(arm.pretrain.options, LENGTH_FLAGS) | search.options | {LR_FLAG: lr, "seed": search.seed}
        placed, files = self.placed("pretrain", arm.pretrain.recipe, options)
        data, out = self._images(arm), self._search_out(arm) / f"lr{lr!r}"
        return self.call(
            _short_name(arm, lr),
            "pretrain",
            arm.pretrain.recipe,
            {"data": data, "arm": arm.label, **placed},
            out=out,
            phase="pretrain-search",
            kind=f"pretrain-search {arm.label}",
            arm=arm.label,
            data=data,
            inputs=self.not_made(*files),
            needs=(f"hold-out-pretrain-{arm.label}", *self.made_by(*files)),
        )

    def _judged(self, arm: Arm, lr: float) -> Run:
        """Return the probe of a short pre-training."""
        search = self.study.pretrain_search
        assert search is not None
        out, data = self._search_out(arm) / f"lr{lr!r}-probe", self._images(arm)
        init = self._search_out(arm) / f"lr{lr!r}" / BACKBONE_NAME
        return self.call(
            f"probe-{_short_name(arm, lr)}",
            PROBE,
            search.probe.recipe,
            {"data": data, "init": init, "init_architecture": "file", **search.probe.options},
            out=out,
            phase="pretrain-probe",
            kind="pretrain-probe",
            arm=arm.label,
            data=data,
            init=init,
            needs=(f"hold-out-pretrain-{arm.label}", _short_name(arm, lr)),
            records=(out / "knn", out / PROBED),
        )

    def _search_out(self, arm: Arm) -> Path:
        return self.out / "search" / f"pretrain-{arm.label}"

    def _searched_with(self, arm: Arm) -> Arm:
        """Return the first arm whose pre-training differs from this one's in nothing but its length."""
        return next(other for other in self.study.arms if _but_length(other.pretrain) == _but_length(arm.pretrain))

    def _choice(self, arm: Arm) -> Search | None:
        if self.study.pretrain_search is None:
            return None
        arm = self._searched_with(arm)
        out = self._search_out(arm)
        return Search(
            task="pre-training",
            arm=arm.label,
            seed=self.study.pretrain_search.seed,
            grid=tuple((lr, out / f"lr{lr!r}") for lr in _grid(arm)),
            runs=tuple(f"probe-{_short_name(arm, lr)}" for lr in _grid(arm)),
            judge=PROBE,
            judged=tuple(out / f"lr{lr!r}-probe" / PROBED for lr in _grid(arm)),
            out=out,
        )


def without(options: Options, names: set[str]) -> dict[str, Any]:
    """Return the flags but those of these names."""
    return {name: value for name, value in options.items() if name not in names}


def pretrain_name(arm: Arm, seed: int | None) -> str:
    """Return the name of a pre-training."""
    return f"pretrain-{arm.label}" + ("" if seed is None else f"-seed{seed}")


def seconds(hours: float | None) -> float | None:
    """Return hours in seconds."""
    return None if hours is None else 3600 * hours


def _grid(arm: Arm) -> tuple[float, ...]:
    return () if arm.pretrain is None else arm.pretrain.base_lrs


def _but_length(pretrain: Pretraining | None) -> Any:
    if pretrain is None:
        return None
    return pretrain.recipe, pretrain.data, pretrain.base_lrs, without(pretrain.options, LENGTH_FLAGS)


def _short_name(arm: Arm, lr: float) -> str:
    return f"search-pretrain-{arm.label}-lr{lr!r}"
