"""Whether runs may be compared: they must differ in nothing but their arm and their seed.

A learning rate that a study has searched for every arm alike may differ too, where the run has the one that its search
chose.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from backbones.config import ViTConfig
from benchmark.compare.records import Stored
from benchmark.study.plan import Match, Plan
from engine.config import differences
from engine.records.record import RunRecord

TRANSFER_FIELDS = (
    "recipe",
    "data",
    "train_split",
    "val_split",
    "train_images",
    "val_images",
    "steps",
    "total_steps",
    "samples_seen",
    "architecture",
    "precision",
    "world_size",
    "libraries",
)
PRETRAINING_FIELDS: dict[Match, tuple[str, ...]] = {
    "samples": ("data", "train_split", "train_images", "architecture"),
    "flops": ("data", "train_split", "train_images", "architecture"),
    "none": ("architecture",),
}
ARCHITECTURE = "architecture"
DEPTH = f"{ARCHITECTURE}.depth"
HAS_CLASS_TOKEN = "class_token"
"""Of a configuration: whether the weights have one, where the task reads none of it."""
FLOPS_TOLERANCE = 0.01  # share
SEARCHED = "as searched"
Later = Callable[
    [str, dict[str, Any]], dict[str, Any]
]  # of a task and its recorded configuration: that with new fields
AtDepth = Callable[
    [str, Mapping[str, Any], str], Mapping[str, Any]
]  # of a task, its recorded configuration and recipe: that with what follows from the depth as the recipe has it


def transfer_problems(
    stored: Sequence[Stored], differ: Sequence[str] = (), later: Later | None = None, at_depth: AtDepth | None = None
) -> list[str]:
    """Return what makes the runs of one task unequal, each line with the field's name; empty where they are equal.

    The whole configuration counts but for the seed, for what the engine lets a run change midway (workers, logging),
    for whether the weights have a class token, and for the parts of the architecture in `differ`. `later` gives a
    configuration the defaults of the fields that came after it; it is asked where the recorded ones differ. `at_depth`
    is asked where the depth is in `differ`: what follows from it is then no difference.
    """
    if at_depth is not None and {ARCHITECTURE, DEPTH} & {*differ}:
        stored = [_at_recipes_depth(item, at_depth) for item in stored]
    problems = _unequal(stored, lambda item: _without(_transfer_view(item), differ))
    if problems and later is not None:
        today = [_of_today(item, later) for item in stored]
        problems = _unequal(today, lambda item: _without(_transfer_view(item), differ))
    seen: dict[tuple[str, int, int | None], Path] = {}
    for item in stored:
        key = (item.arm, item.record.seed, item.pretrain_seed)
        if key in seen:
            of = "" if key[2] is None else f", pre-training {key[2]},"
            problems.append(f"seed: {key[1]} of arm {key[0]}{of} is recorded twice ({seen[key]}, {item.folder})")
        seen.setdefault(key, item.folder)
    return problems


def repeats_of(run: tuple[Path, RunRecord], others: Sequence[tuple[Path, RunRecord]]) -> list[RunRecord]:
    """Return the records of the others, which must be the same run with other seeds.

    What they start from may differ in the file (each of its own pre-training), not in the family.

    Raises ValueError that names every difference.
    """
    stored = [Stored(folder=folder, record=record, arm=record.recipe, line=None) for folder, record in (run, *others)]
    views = ("task", "data", "weights_source", "weights_options")
    problems = [*_unequal(stored, lambda item: _stated(item, views)), *transfer_problems(stored)]
    if problems:
        raise ValueError(f"{run[0]}: not the same run with other seeds: {'; '.join(problems)}.")
    return [record for _, record in others]


def pretraining_problems(stored: Sequence[Stored], plan: Plan | None = None) -> list[str]:
    """Return what the pre-training arms do not share of what the plan says that they share.

    samples: images, samples seen, architecture. flops: images, architecture, MACs within FLOPS_TOLERANCE. none: the
    architecture alone. Samples and MACs may be less than a step of either run apart, since steps are whole. The parts
    of the architecture in the plan's `differ` may be unequal. An arm with a budget of its own shares that with the
    claim's.
    """
    plan = Plan(name="") if plan is None else plan
    arms = [item.arm for item in stored]
    reference = plan.claim if plan.claim in arms or not arms else arms[0]
    problems: list[str] = []
    for match in dict.fromkeys((plan.match, *plan.match_by_arm.values())):
        mine = [item for item in stored if plan.match_of(item.arm) == match or item.arm == reference]
        problems += _unmatched(mine, match, plan.differ)
    return [*dict.fromkeys(problems)]


def _unmatched(stored: Sequence[Stored], match: Match, differ: Sequence[str]) -> list[str]:
    names = PRETRAINING_FIELDS[match]
    problems = _unequal(stored, lambda item: _without(_stated(item, names), differ))
    if match == "samples":
        return [*problems, *_unequal_samples(stored)]
    return [*problems, *_unequal_flops(stored)] if match == "flops" else problems


def origin_problems(transfers: Sequence[Stored], pretrainings: Sequence[Stored]) -> list[str]:
    """Return the arms whose weights are not those that the recorded pre-training of that arm left.

    Where a study repeats its pre-trainings, the weights of each transfer must be those of its own pre-training's seed.
    """
    problems = []
    for arm, seed in dict.fromkeys((item.arm, item.pretrain_seed) for item in transfers):
        mine = [item for item in pretrainings if item.arm == arm and (seed is None or item.record.seed == seed)]
        left = {item.checkpoint_sha256 for item in mine} - {None}
        used = {item.record.weights_sha256 for item in transfers if (item.arm, item.pretrain_seed) == (arm, seed)}
        if left and not used <= left:
            which = "" if seed is None else f" with seed {seed}"
            how = ", but from random weights" if None in used else ""
            problems.append(
                f"weights_sha256: arm {arm} did not start from the checkpoint of its recorded pre-training{which}{how}"
            )
    return sorted(problems)


def repeat_problems(pretrainings: Sequence[Stored], plan: Plan) -> list[str]:
    """Return in what pre-trainings of one arm differ beside their seed, and which arms have two of the same weights."""
    if plan.pretrain_seeds == "one":
        return []
    problems = []
    for arm in dict.fromkeys(item.arm for item in pretrainings):
        mine = [item for item in pretrainings if item.arm == arm]
        problems += [f"arm {arm}: {line}" for line in _unequal(mine, _transfer_view)]
        left = [item.checkpoint_sha256 for item in mine if item.checkpoint_sha256 is not None]
        if len({*left}) < len(left):
            problems.append(f"weights_sha256: two pre-trainings of arm {arm} left the same weights; give each its seed")
    return problems


def tied_problems(transfers: Sequence[Stored], plan: Plan) -> list[str]:
    """Return the arms of a study with tied seeds of which several transfers start from one pre-training."""
    if plan.pretrain_seeds != "tied":
        return []
    starts: dict[tuple[str, int], list[int]] = {}
    for item in transfers:
        if item.pretrain_seed is not None:
            starts.setdefault((item.arm, item.pretrain_seed), []).append(item.record.seed)
    return [
        f"pretrain_seeds: tied, but transfer seeds {', '.join(map(str, seeds))} of arm {arm} start from one, {of}"
        for (arm, of), seeds in starts.items()
        if len(seeds) > 1
    ]


def _of_today(item: Stored, later: Later) -> Stored:
    return replace(item, record=replace(item.record, config=later(item.record.task, item.record.config)))


def _at_recipes_depth(item: Stored, at_depth: AtDepth) -> Stored:
    record = item.record
    return replace(item, record=replace(record, config=dict(at_depth(record.task, record.config, record.recipe))))


def _unequal(stored: Sequence[Stored], view: Callable[[Stored], dict[str, Any]]) -> list[str]:
    problems: dict[str, Path] = {}
    first = view(stored[0]) if stored else {}
    for item in stored[1:]:
        for line in differences(first, _same_data(first, view(item))):
            problems.setdefault(line, item.folder)
    return [f"{line} (from {stored[0].folder.name} to {folder.name})" for line, folder in problems.items()]


def _same_data(first: dict[str, Any], view: dict[str, Any]) -> dict[str, Any]:
    """Return a view under the first one's path of the data where both lead to the same folder, by a link perhaps."""
    if view.get("data") == first.get("data") or Path(view["data"]).resolve() != Path(first["data"]).resolve():
        return view
    return {**view, "data": first["data"]}


def _without(view: dict[str, Any], differ: Sequence[str]) -> dict[str, Any]:
    """Return a view without the parts of the architecture that may differ, in the record and in the configuration."""
    config = view.get("config", {})
    places = ((view, ARCHITECTURE), (config, "backbone"))
    lighter = [_lighter(holder, name, differ) for holder, name in places]
    return {**lighter[0], **({"config": lighter[1]} if "config" in view else {})}


def _lighter(holder: dict[str, Any], name: str, differ: Sequence[str]) -> dict[str, Any]:
    if ARCHITECTURE in differ:
        return {key: value for key, value in holder.items() if key != name}
    fields = {path.partition(".")[2] for path in differ}
    if not fields or not isinstance(holder.get(name), dict):
        return holder
    return {**holder, name: {key: value for key, value in holder[name].items() if key not in fields}}


def _transfer_view(item: Stored) -> dict[str, Any]:
    record = item.record
    view = _stated(item, TRANSFER_FIELDS)
    config = {name: value for name, value in record.config.items() if name != HAS_CLASS_TOKEN}
    if isinstance(config.get("run"), dict):
        config["run"] = {name: value for name, value in config["run"].items() if name != "seed"}
        optim = config["run"].get("optim", {})
        if item.choice is not None and optim.get("base_lr") == item.choice.base_lr:
            config["run"]["optim"] = {**optim, "base_lr": SEARCHED}
    else:
        config.pop("seed", None)  # a probe has no run
    return {**view, "config": config}


def _stated(item: Stored, names: Sequence[str]) -> dict[str, Any]:
    """Return these fields of the record, a ViT's architecture with the defaults of the fields that came after it."""
    view: dict[str, Any] = {name: getattr(item.record, name) for name in names}
    if "embed_dim" in view.get(ARCHITECTURE, {}):
        later = {f.name: f.default for f in fields(ViTConfig) if f.default is not MISSING}
        view[ARCHITECTURE] = json.loads(json.dumps(later)) | view[ARCHITECTURE]  # lists, as a record has them
    return view


def _unequal_samples(stored: Sequence[Stored]) -> list[str]:
    """Return a line for each run that has seen a step more or less than one before it."""
    found = []
    for number, item in enumerate(stored):
        for other in stored[:number]:
            seen, before = item.record.samples_seen, other.record.samples_seen
            if seen != before and abs(seen - before) >= max(_of_a_step(item), _of_a_step(other)):
                found.append(f"samples_seen: {before} -> {seen} (from {other.folder.name} to {item.folder.name})")
                break
    return found


def _of_a_step(item: Stored) -> float:
    """Return the samples of a step: of each image that is loaded, all its crops."""
    return item.record.samples_seen / item.record.steps if item.record.steps else 0.0


def _unequal_flops(stored: Sequence[Stored]) -> list[str]:
    unknown = [item.folder.name for item in stored if item.record.cost.training_flops is None]
    if unknown:
        return [f"flops_per_image: not recorded of {', '.join(unknown)}, so the budgets in FLOPs are not known"]
    spent = [((item.record.cost.training_flops or 0.0) * item.record.samples_seen, item) for item in stored]
    if all(_alike(one, other) for number, one in enumerate(spent) for other in spent[:number]):
        return []
    each = ", ".join(f"{item.folder.name} {value:.4g}" for value, item in spent)
    return [f"MACs of training: the pre-trainings differ by more than {FLOPS_TOLERANCE:.0%} and a step ({each})"]


def _alike(one: tuple[float, Stored], other: tuple[float, Stored]) -> bool:
    """Return whether two runs have spent as many MACs, to FLOPS_TOLERANCE or within a step of either."""
    low, high = sorted((one[0], other[0]))
    step = max((item.record.cost.training_flops or 0.0) * _of_a_step(item) for _, item in (one, other))
    return high <= (1 + FLOPS_TOLERANCE) * low or high - low < step
