"""The runs that make up a study, in the order in which they run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a tool."""

    name: str
    tool: str
    """Name of the tool, a key of the suite's tools."""
    argv: tuple[str, ...]
    """Its command line, without --resume."""
    out: Path
    """Folder that it writes to."""
    data: Path | None = None
    """Folder of its data set, as in argv; None where it takes none."""
    init: Path | None = None
    """Checkpoint that it starts from, as in argv."""
    needs: tuple[str, ...] = ()
    """Names of runs that must have succeeded before."""
    seconds: float
    """About how long it takes on two CPU cores: the ETA until a run of its kind has been timed."""

    @property
    def kind(self) -> tuple[str, str]:
        """Runs of one kind take about the same time."""
        return self.tool, self.argv[0]

    @property
    def log(self) -> Path:
        """File that holds what it prints."""
        return self.out.parent / "logs" / f"{self.name}.log"


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """A task of the demo."""

    task: str
    tool: str
    data: str
    """Layout below the scenes' folder."""
    seconds: float


def counts(*, classify: tuple[int, int, int], dense: tuple[int, int, int]) -> tuple[str, ...]:
    """Return make_scenes' flags for (train, val, test) images with a label, and with boxes, masks and label maps."""
    named = {"classify": classify, "dense": dense}
    return tuple(
        text
        for kind, numbers in named.items()
        for split, number in zip(("train", "val", "test"), numbers, strict=True)
        for text in (f"--{kind}-{split}", str(number))
    )


@dataclass(frozen=True, kw_only=True)
class Demo:
    """The main question on procedural scenes: {random, supervised, MAE} x three tasks x seeds."""

    out: Path
    """Folder of the study."""
    seeds: tuple[int, ...]
    """Of the transfer runs; each arm is pre-trained once."""
    scenes: tuple[tuple[str, tuple[str, ...]], ...] = (
        ("scenes-pretrain", ("--seed", "0", *counts(classify=(3000, 504, 8), dense=(1, 1, 1)))),
        ("scenes-transfer", ("--seed", "1", *counts(classify=(200, 400, 400), dense=(200, 100, 100)))),
    )
    """Folder and flags of the scenes of pre-training and of transfer: other seeds, so no image is in both."""
    pretraining: tuple[tuple[str, str, float], ...] = (
        ("supervised", "tiny_supervised", 210.0),
        ("mae", "tiny", 130.0),
    )
    """Arm, recipe, about how many seconds."""
    recipe: str = "tiny"
    """Recipe of every transfer; the arms differ in --init alone."""
    transfers: tuple[Transfer, ...] = (
        Transfer(task="classification", tool="train_cls", data="imagenet", seconds=20.0),
        Transfer(task="detection", tool="train_det", data="coco", seconds=40.0),
        Transfer(task="segmentation", tool="train_seg", data="ade20k", seconds=25.0),
    )

    def runs(self) -> tuple[Run, ...]:
        """Return scenes, pre-training, then the transfers seed by seed, so that a stop leaves whole comparisons."""
        made = [
            Run(
                name=name,
                tool="make_scenes",
                argv=("--out", str(self.out / name), *flags),
                out=self.out / name,
                seconds=10.0,
            )
            for name, flags in self.scenes
        ]
        many, few = made
        pretrained = [
            self._train(f"pretrain-{arm}", "pretrain", recipe, many, "imagenet", seconds=seconds)
            for arm, recipe, seconds in self.pretraining
        ]
        arms: list[tuple[str, Run | None]] = [("random", None)]
        arms += [(arm, run) for (arm, _, _), run in zip(self.pretraining, pretrained, strict=True)]
        transfers = [
            self._transfer(transfer, few, arm, source, seed)
            for seed in self.seeds
            for transfer in self.transfers
            for arm, source in arms
        ]
        return (*made, *pretrained, *transfers)

    def _transfer(self, transfer: Transfer, scenes: Run, arm: str, source: Run | None, seed: int) -> Run:
        init = ("--init", str(source.out / "backbone.safetensors")) if source else ()
        return self._train(
            f"{transfer.task}-{arm}-seed{seed}",
            transfer.tool,
            self.recipe,
            scenes,
            transfer.data,
            ("--seed", str(seed), *init),
            seconds=transfer.seconds,
            source=source,
        )

    def _train(
        self,
        name: str,
        tool: str,
        recipe: str,
        scenes: Run,
        layout: str,
        flags: tuple[str, ...] = (),
        *,
        seconds: float,
        source: Run | None = None,
    ) -> Run:
        out, data = self.out / name, scenes.out / layout
        return Run(
            name=name,
            tool=tool,
            argv=(recipe, "--data", str(data), "--out", str(out), *flags),
            out=out,
            data=data,
            init=source.out / "backbone.safetensors" if source else None,
            needs=(scenes.name, source.name) if source else (scenes.name,),
            seconds=seconds,
        )


def demo(out: Path, seeds: tuple[int, ...]) -> tuple[Run, ...]:
    """Return the runs of the demo: `python tools/run_benchmark.py demo`, about 15 minutes on two cores."""
    return Demo(out=out, seeds=seeds).runs()


STUDIES: dict[str, Callable[[Path, tuple[int, ...]], tuple[Run, ...]]] = {"demo": demo}


def choose_study(name: str, out: Path, seeds: tuple[int, ...]) -> tuple[Run, ...]:
    """Return the runs of a study. Raises ValueError that lists the studies, or for seeds that make none."""
    if name not in STUDIES:
        raise ValueError(f"no study is called {name!r}; there are: {', '.join(sorted(STUDIES))}.")
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ValueError(f"--seeds {' '.join(map(str, seeds))}: give one or more different seeds, none below 0.")
    return STUDIES[name](out, seeds)
