"""What would fail in a study, found before anything runs: missing files, wrong flags and recipes, unequal budgets."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmark.compare.fairness import ARCHITECTURE
from benchmark.study.budget import Length, flops_lengths, unequal_samples
from benchmark.study.run import Run, settled
from benchmark.study.spec import Study, pretraining_seeds
from engine.config import differences
from engine.records.record import RECORD_NAME, TRAINED, read_record
from files.naming import LONGEST

MOST_SAID = 12
# of a configuration: the MACs of a sample do not follow them
NOT_OF_AN_IMAGE = frozenset({"length", "seed"})


def problems(study: Study, runs: Sequence[Run]) -> list[str]:
    """Return what is wrong with a study, one line each; empty where nothing is."""
    found = (
        *_names(runs),
        *_files(runs),
        *(f"{_place(run)}: {run.fault}" for run in runs if run.fault is not None),
        *_architectures(study, runs),
        *_searches(study, runs),
    )
    return [*dict.fromkeys(found)]


def refuse(file: str, found: Sequence[str]) -> None:
    """Raise ValueError that lists what is wrong with a study; nothing where `found` is empty."""
    if found:
        more = [f"and {len(found) - MOST_SAID} more"] if len(found) > MOST_SAID else []
        raise ValueError("\n  ".join([f"{file}: nothing was run, since", *found[:MOST_SAID], *more]))


def budget(study: Study, runs: Sequence[Run], out: Path) -> dict[str, dict[str, float]]:
    """Return by arm the lengths that FLOPs ask for; empty for the other budgets.

    Raises ValueError where the pre-trainings of the arms do not see as much, or what they see is not known.
    """
    first = pretraining_seeds(study)[0]  # the others are as long
    runs = [run for run in runs if run.phase == "pretrain" and run.pretrain_seed == first]
    configs = {run.arm or "": run.settings for run in runs if run.settings is not None}
    if len(configs) < len(runs):  # what is wrong with a run is said by `problems`
        return {}
    known = {arm.label: arm.pretrain for arm in study.arms if arm.pretrain is not None}
    reference = study.compare.claim if study.compare.claim in known else next(iter(known), "")
    found: dict[str, dict[str, float]] = {}
    for match in ("samples", "flops"):
        arms = [arm for arm in known if study.budget.arms.get(arm, study.budget.match) == match or arm == reference]
        if {*arms} <= {reference}:
            continue
        mine = [run for run in runs if run.arm in arms]
        if len({run.data for run in mine}) > 1:
            each = "; ".join(f"{run.arm} {run.data}" for run in mine)
            raise ValueError(
                f"budget.match: {match}, but the pre-trainings are on different images: {each}. Give all the same "
                "data, or state `match: none`."
            )
        lengths = [Length.of(arm, configs[arm]) for arm in arms]
        if match == "samples":
            if (unequal := unequal_samples(lengths)) is not None:
                raise ValueError(unequal)
            continue
        flops: dict[str, float | None] = {}
        for run in mine:
            arm = run.arm or ""
            stated = known[arm].flops_per_image
            flops[arm] = _recorded_flops(out, run) if stated is None else TRAINED * stated
        found |= flops_lengths(lengths, flops, reference)
    return found


def _names(runs: Sequence[Run]) -> Iterator[str]:
    for what, count in Counter(run.name for run in runs).items():
        if count > 1:
            yield f"{what}: {count} runs would have this name; rename the tasks or the arms"
        if (length := len(os.fsencode(f"{what}.log"))) > LONGEST:
            yield f"{what}: its log would have a name of {length} bytes, more than {LONGEST}; give shorter names"


def _files(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        for path in run.inputs:
            if not path.exists():
                yield f"{_place(run)}: {path} is not there; mend the path, or give another root by --data"


def _architectures(study: Study, runs: Sequence[Run]) -> Iterator[str]:
    """Yield the arms whose pre-training has another ViT than the first, where the study does not say so."""
    found = []
    for run in runs:
        config = run.settings
        if run.phase == "pretrain" and config is not None and isinstance(config.get("backbone"), dict):
            position = config.get("position") or config["backbone"]["position"]  # an ablation's flag goes before
            found.append((run, {**config["backbone"], "position": position}))
    for run, vit in found[1:]:
        for line in differences(found[0][1], vit):
            name = f"{ARCHITECTURE}.{line.partition(':')[0]}"
            if not {ARCHITECTURE, name} & {*study.differ}:
                yield (
                    f"{_place(run)}: another ViT than that of {found[0][0].arm} ({line}); give the arms the same, or, "
                    f"where that is what is compared, state `differ: [{name}]`"
                )


def _searches(study: Study, runs: Sequence[Run]) -> Iterator[str]:
    """Yield what makes a search see the images of the results."""
    results = {run.task: run for run in runs if run.phase == "transfer"}
    for task in study.transfers:
        if task.search is not None and task.search.hold_out is not None:
            if "train_list" in task.options:
                yield f"tasks.{task.name}.search.hold_out: train_list names images too; give the search `data` instead"
            twice = sorted({"val_split", "val_json"} & task.search.options.keys())
            if twice or task.search.data is not None:
                yield f"tasks.{task.name}.search: hold_out and {', '.join(twice) or 'data'} both name images; give one"
    for run in runs:
        if run.phase != "search":
            continue
        mine, theirs = run.settings, results[run.task].settings
        if mine is None or theirs is None:
            continue
        if _judged_on(run, mine) == _judged_on(results[run.task], theirs):
            yield (
                f"tasks.{run.task}.search: it would choose on the images that the results are from; give hold_out (a "
                "share of the training images), or val_split, val_json or data of other images"
            )


def _judged_on(run: Run, config: dict[str, Any]) -> tuple[Any, ...]:
    return run.data, config.get("val_split"), config.get("val_json")


def _place(run: Run) -> str:
    if run.phase == "pretrain":
        return f"arms.{run.arm}.pretrain"
    if run.phase == "tokenizer":
        return f"tokenizers.{run.name}"
    if run.phase == "data":
        return run.name
    if run.phase == "pretrain-search":
        return f"arms.{run.arm}.pretrain, searched"
    if run.phase == "pretrain-probe":
        return "pretrain_search.probe"
    return f"tasks.{run.task}" if run.phase == "transfer" else f"tasks.{run.task}.search"


def _recorded_flops(out: Path, run: Run) -> float | None:
    """Return the MACs of training on one sample from a record of this pre-training, or of one like it.

    Its configuration is the same but for the length and the seed.
    """
    for path in [run.out / RECORD_NAME, *sorted(out.glob(f"pretrain-*/{RECORD_NAME}"))]:
        try:
            record = read_record(path)
        except (FileNotFoundError, ValueError):
            continue
        if record.cost.training_flops is None:
            continue
        if not differences(record.config, settled(run, record), without=NOT_OF_AN_IMAGE):
            return record.cost.training_flops
    return None
