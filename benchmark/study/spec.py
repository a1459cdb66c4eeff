"""What a study asks: arms, tasks, seeds, learning rates and budgets. docs/studies.md shows the file."""

from dataclasses import dataclass

from benchmark.study.full_scale import FullScale
from benchmark.study.plan import Match

RATE_FLAG = "base_lr"
FRACTION_FLAG = "label_fraction"
SEARCH_SEED = 100


@dataclass(frozen=True)
class Flag:
    """A flag of a tool."""

    name: str
    """As in --help, with underscores."""
    value: bool | tuple[str, ...]
    """On or off, or what follows the name."""

    def argv(self) -> tuple[str, ...]:
        """Return it as a command line has it."""
        name = self.name.replace("_", "-")
        if isinstance(self.value, bool):
            return (f"--{name}" if self.value else f"--no-{name}",)
        return (f"--{name}", *self.value)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A pre-training that is run first."""

    recipe: str
    data: str
    flags: tuple[Flag, ...] = ()
    hours: float | None = None
    """About how long it takes; what is recorded goes before it."""
    flops_per_image: float | None = None
    """Multiply-adds of one forward pass, as a record has them; goes before what is recorded."""


@dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
    """A tokenizer that is trained before the arms, which name its file as `NAME/tokenizer.safetensors`."""

    name: str
    train: Pretraining


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Weights to compare: random ones, a file, or what a pre-training leaves."""

    label: str
    init: str | None = None
    declared: tuple[Flag, ...] = ()
    """What is declared of the file: init_source and the like."""
    pretrain: Pretraining | None = None


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The search of the learning rate of a task, the same for every arm."""

    base_lrs: tuple[float, ...]
    seed: int = SEARCH_SEED
    hold_out: float | None = None
    """Share of the training images that is held out for it; None where `flags` name other images."""
    flags: tuple[Flag, ...] = ()
    """In place of the task's or beside them."""
    data: str | None = None
    """In place of the task's."""


@dataclass(frozen=True, kw_only=True)
class TransferTask:
    """A task that every arm is transferred to."""

    name: str
    tool: str
    """One that takes initial weights."""
    recipe: str
    """For `probe` the name of a ViT."""
    data: str
    flags: tuple[Flag, ...] = ()
    label_fractions: tuple[float, ...] = (1.0,)
    """An axis of its own: every fraction is a task with its own search."""
    search: Grid | None = None
    hours: float | None = None
    """About how long one run takes; what is recorded goes before it."""


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """Procedural images that are made first; `data` names them by `NAME/imagenet`, `NAME/coco`, `NAME/ade20k`."""

    name: str
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a job of a run asks SLURM for; one node."""

    partition: str | None = None
    account: str | None = None
    gpus: int = 0
    cpus: int = 4
    memory_gb: int = 16
    hours: float = 24.0
    """Limit of a job, which is queued again and resumed when it is reached."""
    at_once: int = 16
    """Jobs of an array that run at the same time."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The whole of a study file."""

    name: str
    seeds: tuple[int, ...]
    """Of the transfers; each arm is pre-trained once."""
    arms: tuple[Arm, ...]
    tasks: tuple[TransferTask, ...]
    data: str = "."
    """Folder that the file's paths start from."""
    claim: str
    """Label of the arm whose advantage the verdicts are about."""
    against: str
    """Label of the other arm of the headline."""
    pass_mark: float | None = None
    """Percent top1 that a supervised pre-training must reach on its own held-out images to be no straw man."""
    match: Match = "samples_seen"
    """What the pre-trainings share: image passes, FLOPs, or nothing."""
    differ: tuple[str, ...] = ()
    """Parts of the architecture in which the arms differ by intention: `architecture`, or `architecture.FIELD`."""
    published: FullScale | None = None
    """What a paper reports of the same question at full scale."""
    scenes: tuple[Scenes, ...] = ()
    tokenizers: tuple[TokenizerTraining, ...] = ()
    """What arms predict the tokens of."""
    cluster: Cluster = Cluster()
