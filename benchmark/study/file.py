"""A study file (YAML) to a Study and back; what is wrong with it is said with its place and the way out."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from backbones.config import ViTConfig
from benchmark.study.full_scale import FullScale, FullScaleRow
from benchmark.study.plan import Match
from benchmark.study.section import Errors, Section, hours, part, path, positive, recipe, share, whole
from benchmark.study.spec import (
    FRACTION_FLAG,
    RATE_FLAG,
    Arm,
    Cluster,
    Flag,
    Grid,
    Pretraining,
    Scenes,
    Study,
    TokenizerTraining,
    TransferTask,
)
from files.parsing import parse_yaml

Vocabulary = Mapping[str, Collection[str]]  # tool -> names of its flags
PRETRAIN = "pretrain"  # the tool that makes weights; the others that take some transfer them
DIFFER = ("architecture", *(f"architecture.{f.name}" for f in fields(ViTConfig)))
MATCHES: tuple[Match, ...] = ("samples_seen", "flops", "none")
# of a study's folder: what is made by `scenes` and `tokenizers` lies beside it
OWN_NAMES = {"held-out", "logs", "search", "slurm", "study.json", "study.yaml"}
# what a study sets itself
SET = {"recipe", "backbone", "data", "out", "resume", "seed", "arm", "init", RATE_FLAG, FRACTION_FLAG, "cache"}


def read_study(file: Path, vocabulary: Vocabulary) -> Study:
    """Return the study in a file. Raises FileNotFoundError, or ValueError that names file, field, value and way out."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such study file.")
    return parse_study(file.read_bytes(), file.name, vocabulary)


def parse_study(content: bytes | str, file: str, vocabulary: Vocabulary) -> Study:
    """Return the study in a text.

    Raises ValueError that names `file`, and field, value and way out of everything that is wrong, a line each.
    """
    errors = Errors(file)
    top = Section(errors, "", parse_yaml(content, file))
    name = top.name("name")
    root = top.path("data", default=".")
    seeds = top.each("seeds", whole, hint="[0, 1, 2]")
    top.check_distinct("seeds", seeds)
    compare = top.section("compare", default={})
    budget = top.section("budget", default={})
    match = budget.choice("match", MATCHES, default="samples_seen")
    budget.end()
    scenes = [_scenes(section, label, vocabulary) for label, section in top.named("scenes", default={})]
    tokenizers = [
        TokenizerTraining(name=label, train=_pretraining(section, vocabulary))
        for label, section in top.named("tokenizers", default={})
    ]
    arms = [_arm(section, label, vocabulary) for label, section in top.named("arms", scalars={"random": {}})]
    tasks = [_task(section, label, vocabulary) for label, section in top.named("tasks")]
    cluster = _cluster(top.section("cluster", default={}))
    labels = [arm.label for arm in arms]
    differ = top.each("differ", _difference, hint="[architecture.position]", default=())
    published = _full_scale(top.section("published"), labels) if top.has("published") else None
    top.end()
    if len(labels) == 1:
        top.wrong("arms", f"{len(labels)} arm; a comparison needs two or more")
    claim = compare.choice("claim", labels, default="mae" if "mae" in labels else None)
    others = [label for label in labels if label != claim]
    against = compare.choice("against", others, default="supervised" if "supervised" in others else None)
    pass_mark = compare.maybe("pass_mark", positive)
    compare.end()
    for made in sorted(({item.name for item in scenes} | {item.name for item in tokenizers}) & OWN_NAMES):
        errors.say(made, "the study's folder has something of this name itself; give another")
    for task in tasks:
        if task.search is not None and task.search.seed in seeds:
            top.wrong(
                f"tasks.{task.name}.search.seed", f"{task.search.seed} is a seed of the study; the search takes another"
            )
    errors.refuse()
    return Study(
        name=name,
        data=root,
        seeds=seeds,
        arms=tuple(arms),
        tasks=tuple(tasks),
        claim=claim,
        against=against,
        pass_mark=pass_mark,
        match=match,
        differ=differ,
        published=published,
        scenes=tuple(scenes),
        tokenizers=tuple(tokenizers),
        cluster=cluster,
    )


def study_text(study: Study) -> str:
    """Return the file that `parse_study` reads the study from."""
    content: dict[str, Any] = {
        "name": study.name,
        "data": study.data,
        "compare": {
            "claim": study.claim,
            "against": study.against,
            **({"pass_mark": study.pass_mark} if study.pass_mark is not None else {}),
        },
        "seeds": list(study.seeds),
        "budget": {"match": study.match},
        **({"differ": list(study.differ)} if study.differ else {}),
        **({"published": _plain_full_scale(study.published)} if study.published is not None else {}),
        "scenes": {item.name: _plain_flags(item.flags) for item in study.scenes},
        "tokenizers": {item.name: _plain_pretraining(item.train) for item in study.tokenizers},
        "arms": {arm.label: _plain_arm(arm) for arm in study.arms},
        "tasks": {task.name: _plain_task(task) for task in study.tasks},
        "cluster": {f.name: getattr(study.cluster, f.name) for f in fields(Cluster)},
    }
    content["cluster"] = {name: value for name, value in content["cluster"].items() if value is not None}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _arm(section: Section, label: str, vocabulary: Vocabulary) -> Arm:
    ways = [way for way in ("random", "init", "pretrain") if section.has(way)]
    if len(ways) != 1:
        section.wrong(
            " or ".join(ways or ("random", "init", "pretrain")),
            "an arm is one of: `random: true`, `init: FILE`, `pretrain: {recipe: ..., data: ...}`",
        )
        return Arm(label=label)
    if ways == ["random"]:
        if section.take("random", lambda value: value) is not True:
            section.wrong("random", "is true where it is there")
        section.end()
        return Arm(label=label)
    if ways == ["init"]:
        file = section.path("init")
        declared = {name for name in vocabulary[PRETRAIN] if name.startswith("init_")} | {"trust_pickle"}
        declared -= {"init_architecture"}  # the study's `differ` decides
        return Arm(label=label, init=file, declared=section.flags(declared, "an arm with `init`"))
    inner = section.section("pretrain")
    section.end()
    return Arm(label=label, pretrain=_pretraining(inner, vocabulary))


def _pretraining(section: Section, vocabulary: Vocabulary) -> Pretraining:
    name, data = section.take("recipe", recipe), section.path("data")
    length, flops = section.maybe("hours", hours), section.maybe("flops_per_image", positive)
    flags = section.flags(_own(vocabulary[PRETRAIN]), "pretrain")
    return Pretraining(recipe=name, data=data, hours=length, flops_per_image=flops, flags=flags)


def _task(section: Section, name: str, vocabulary: Vocabulary) -> TransferTask:
    tool = section.choice("tool", [name for name, flags in vocabulary.items() if "init" in flags and name != PRETRAIN])
    # the flags of a tool that is not known are not looked at
    flags_of_tool = vocabulary[tool] if tool is not None else {*section.values, RATE_FLAG, FRACTION_FLAG}
    fractions = section.each("label_fractions", share, hint="[0.01, 0.1, 1]", default=(1.0,))
    section.check_distinct("label_fractions", fractions)
    if fractions != (1.0,) and FRACTION_FLAG not in flags_of_tool:
        section.wrong("label_fractions", f"{tool} takes no fraction of the labels; train_cls does")
    chosen, data = section.take("recipe", recipe), section.path("data")
    length = section.maybe("hours", hours)
    search = _grid(section.section("search"), tool, flags_of_tool) if section.has("search") else None
    return TransferTask(
        name=name,
        tool=tool,
        recipe=chosen,
        data=data,
        hours=length,
        label_fractions=fractions,
        search=search,
        flags=section.flags(_own(flags_of_tool), tool),
    )


def _grid(section: Section, tool: str | None, flags_of_tool: Collection[str]) -> Grid:
    if RATE_FLAG not in flags_of_tool:
        section.wrong("base_lrs", f"{tool} takes no learning rate (it has no flag --{RATE_FLAG.replace('_', '-')})")
    base_lrs = section.each("base_lrs", positive, hint="[2.5e-4, 5e-4, 1e-3]")
    section.check_distinct("base_lrs", base_lrs)
    seed = section.take("seed", whole, Grid.seed)
    hold_out = section.maybe("hold_out", part)
    data = section.maybe("data", path)
    flags = section.flags(_own(flags_of_tool if tool is not None else section.values), tool or "the tool")
    return Grid(base_lrs=base_lrs, seed=seed, hold_out=hold_out, data=data, flags=flags)


def _difference(value: Any) -> str:
    if not isinstance(value, str) or value not in DIFFER:
        raise ValueError(f"not there; give {DIFFER[0]} for all of it, or one of {', '.join(DIFFER[1:])}")
    return value


def _full_scale(section: Section, arms: Collection[str]) -> FullScale:
    source, setting = section.text("source"), section.text("setting")
    hint = "[{arm: grid, variant: grid 75 %, values: {linear: 66.0}}]"
    rows = []
    for number, values in enumerate(section.each("rows", lambda value: value, hint=hint)):
        row = Section(section.errors, f"{section.place}.rows[{number}]", values)
        arm = row.choice("arm", arms) if row.has("arm") else None
        variant, columns = row.text("variant"), row.section("values")
        row.end()
        if not columns.values:
            columns.errors.say(f"{row.place}.values", "is empty; leave a row out of which nothing is published")
        found = {name: columns.take(name, positive) for name in [*columns.values]}
        rows.append(FullScaleRow(variant=variant, arm=arm, values=found))
    section.end()
    return FullScale(source=source, setting=setting, rows=tuple(rows))


def _scenes(section: Section, name: str, vocabulary: Vocabulary) -> Scenes:
    return Scenes(name=name, flags=section.flags({*vocabulary["make_scenes"]} - {"out"}, "make_scenes"))


def _cluster(section: Section) -> Cluster:
    readers: dict[str, Callable[[Any], Any]] = {
        "partition": recipe, "account": recipe, "gpus": whole, "cpus": whole, "memory_gb": whole, "hours": hours,
        "at_once": whole,
    }  # fmt: skip
    found = {name: section.take(name, read) for name, read in readers.items() if section.has(name)}
    section.end()
    return Cluster(**found)


def _own(flags: Collection[str]) -> set[str]:
    """Return the flags of a tool that a study does not set itself."""
    return {name for name in flags if name not in SET and not name.startswith("init_") and name != "trust_pickle"}


def _plain_flags(flags: tuple[Flag, ...]) -> dict[str, Any]:
    return {flag.name: flag.value if isinstance(flag.value, bool) else list(flag.value) for flag in flags}


def _plain_full_scale(table: FullScale) -> dict[str, Any]:
    rows = [
        {"variant": row.variant, **({} if row.arm is None else {"arm": row.arm}), "values": dict(row.values)}
        for row in table.rows
    ]
    return {"source": table.source, "setting": table.setting, "rows": rows}


def _plain_arm(arm: Arm) -> dict[str, Any]:
    if arm.init is not None:
        return {"init": arm.init, **_plain_flags(arm.declared)}
    if arm.pretrain is None:
        return {"random": True}
    return {"pretrain": _plain_pretraining(arm.pretrain)}


def _plain_pretraining(given: Pretraining) -> dict[str, Any]:
    found = {name: getattr(given, name) for name in ("recipe", "data", "hours", "flops_per_image")}
    return {**{name: value for name, value in found.items() if value is not None}, **_plain_flags(given.flags)}


def _plain_task(task: TransferTask) -> dict[str, Any]:
    given: dict[str, Any] = {name: getattr(task, name) for name in ("tool", "recipe", "data", "hours")}
    given = {name: value for name, value in given.items() if value is not None}
    given["label_fractions"] = list(task.label_fractions)
    if (grid := task.search) is not None:
        search = {"base_lrs": list(grid.base_lrs), "seed": grid.seed, "hold_out": grid.hold_out, "data": grid.data}
        given["search"] = {k: v for k, v in search.items() if v is not None} | _plain_flags(grid.flags)
    return {**given, **_plain_flags(task.flags)}
