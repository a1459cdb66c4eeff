"""What the planner says of every recipe, kept in docs/recipe_costs.json, which the site's page of recipes shows.

    python docs/recipe_costs.py            # plans what has changed
    python docs/recipe_costs.py --all      # plans all again

Planning all takes a quarter of an hour on one core, too long for a build of the site. A recipe is planned again where
its configuration is another than the one kept; after a change of a model or of the planner, --all. tests/docs checks
that what is kept is of the recipes as they are now, and plans a small one again; `make test-all` plans all of them.
What is not kept is shown as not planned.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import tyro

from engine.config import as_json
from engine.spec import TaskSpec
from files.writing import replacing
from mae_transfer.tasks import TASKS

KEPT = Path(__file__).with_name("recipe_costs.json")
GIB = 2**30
MEMORY = 80 * GIB  # of the GPU that the table is about
OWN_DATA = ("tiny", "small")  # beginnings of the names of recipes for any data
IMAGES = {  # of the training sets that the published recipes are for
    "pretrain": 1_281_167,  # ImageNet-1K
    "train_cls": 1_281_167,
    "train_det": 117_266,  # COCO train2017, those with objects
    "train_seg": 20_210,  # ADE20K
}
LVIS_CLASSES = 1_203
HEAD = (
    "recipe",
    "parameters (M)",
    "GFLOPs per image, forward",
    "GFLOPs per image, training",
    "images at once on 80 GiB",
    "GiB at that",
    "samples seen",
    "training in all (EFLOPs)",
)
CAPTION = (
    "What the planner says of a training step (`tools/plan_run.py`, which names what it leaves out): nothing here was "
    "measured. FLOPs are those of matrix products and convolutions, two per multiply-add; training is the forward and "
    "the backward pass. Memory is that of one GPU of 80 GiB, in bfloat16 autocast, with the recipe's own choice of "
    "activation checkpointing: the most images of an equal split of the batch that fit into one pass, and their peak. "
    "Lengths in epochs are of ImageNet-1K (1,281,167 images), COCO (117,266 with objects) or ADE20K (20,210); a "
    "dash where they are of your own data. Heads have 1,000, 80 (LVIS: 1,203) or 150 classes. Evaluation is left out."
)


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags of the plans."""

    all: bool = False
    """Plan also the recipes that are kept as they are now."""


def main(argv: list[str] | None = None) -> int:
    """Return the exit code 0."""
    args = tyro.cli(Args, args=argv, description=__doc__)
    kept = {} if args.all else read()
    found: dict[str, dict[str, Any]] = {}
    wanted = list(planned_recipes())
    for name, spec, recipe in wanted:
        config = recipe()
        known = kept.get(name)
        found[name] = known if known and known["config"] == digest(config) else planned(name, spec, config)
        if found[name] is not known:
            print(name, found[name], flush=True)
            # after every plan, so that an interrupted call is gone on with
            write({each: (found | {k: v for k, v in kept.items() if k not in found}).get(each) for each, *_ in wanted})
    write(found)
    return 0


def planned_recipes() -> list[tuple[str, TaskSpec, Callable[[], Any]]]:
    """Return (task/recipe, its task, the function) of every recipe that can be planned."""
    return [
        (f"{spec.name}/{name}", spec, recipe)
        for spec in TASKS.values()
        if spec.plan is not None
        for name, recipe in spec.recipes.items()
    ]


def digest(config: Any) -> str:
    """Return the SHA-256 of what a configuration states: a new field that a recipe leaves at None changes nothing."""
    return sha256(json.dumps(_stated(as_json(config)), sort_keys=True).encode()).hexdigest()


def _stated(values: Any) -> Any:
    if not isinstance(values, dict):
        return values
    return {name: _stated(value) for name, value in values.items() if value is not None}


def planned(name: str, spec: TaskSpec, config: Any) -> dict[str, Any]:
    """Return what is kept of a recipe: parameters, MACs per image, images at once and bytes at that, samples seen."""
    from backbones.attention import gpu_kernels
    from engine.memory.plan import Footprint, step_of

    run = replace(config.run, accumulate=1)
    precision = "bf16-mixed" if run.precision == "auto" else run.precision
    recipe = name.partition("/")[2]
    classes = LVIS_CLASSES if "lvis" in recipe else spec.classes
    assert spec.plan is not None
    build = spec.plan(replace(config, run=run), classes=classes, masks=True)
    share = run.batch_size
    sizes = [n for n in range(1, share + 1) if share % n == 0 and n >= min(spec.least_batch, share)]

    def at(images: int) -> Footprint:
        with gpu_kernels():
            return step_of(build, images=images, precision=precision)[0]

    best = largest(sizes, at, MEMORY)
    return {
        "config": digest(config),
        "parameters": best.parameters,
        "forward_macs": best.forward,
        "training_macs": best.training,
        "images_at_once": best.images if best.peak <= MEMORY else None,
        "bytes": best.peak,
        "samples": samples_seen(recipe, spec, config),
    }


def largest(sizes: list[int], at: Callable[[int], Any], memory: int) -> Any:
    """Return what `at` says of the most images whose `peak` is at most `memory`; of the fewest where none is.

    `sizes` ascend, and the peak with them, so that halving finds it.
    """
    low, high, best = 0, len(sizes), None
    while low < high:
        middle = (low + high) // 2
        found = at(sizes[middle])
        if found.peak <= memory:
            best, low = found, middle + 1
        else:
            high = middle
    return at(sizes[0]) if best is None else best


def samples_seen(recipe: str, spec: TaskSpec, config: Any) -> int | None:
    """Return the samples of the whole run; None where its length is in epochs of data that are not known."""
    run = config.run
    if run.length.unit == "epochs" and recipe.startswith(OWN_DATA):
        return None
    images = IMAGES[spec.tool]
    return int(run.length.steps(batch_size=run.batch_size, dataset_size=images)) * int(run.batch_size)


def table(spec: TaskSpec, kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the rows of a task's recipes as Markdown; a recipe that is not kept is said to be not planned."""
    lines = [f"| {' | '.join(HEAD)} |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    return lines + [f"| {' | '.join(_cells(name, kept.get(f'{spec.name}/{name}')))} |" for name in spec.recipes]


def _cells(name: str, row: Mapping[str, Any] | None) -> tuple[str, ...]:
    if row is None:
        return (f"`{name}`", *["not planned"] * (len(HEAD) - 1))
    samples, images = row["samples"], row["images_at_once"]
    return (
        f"`{name}`",
        f"{row['parameters'] / 1e6:,.2f}",
        f"{2 * row['forward_macs'] / 1e9:,.2f}",
        f"{2 * row['training_macs'] / 1e9:,.2f}",
        "not even one" if images is None else f"{images:,}",
        f"{row['bytes'] / GIB:,.1f}",
        "-" if samples is None else f"{samples:,}",
        "-" if samples is None else f"{2 * row['training_macs'] * samples / 1e18:,.3g}",
    )


def read() -> dict[str, dict[str, Any]]:
    """Return what is kept by task/recipe, nothing where there is no file."""
    if not KEPT.is_file():
        return {}
    found: dict[str, dict[str, Any]] = json.loads(KEPT.read_text(encoding="utf-8"))
    return found


def write(rows: Mapping[str, Any]) -> None:
    """Write what is kept, a recipe a line, in the order of the tasks."""
    lines = [f" {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items() if row is not None]
    with replacing(KEPT) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
