"""What the verdicts are about: of which weights, seeds, looks and images they speak. Every report says it first."""

from collections.abc import Iterator, Sequence

from benchmark.compare.comparison import Comparison
from benchmark.compare.contrast import Contrast
from benchmark.report.contrast_text import caution
from benchmark.report.names import RANDOM, listed, quoted, title
from benchmark.report.tables import MOST_LISTED


def about(comparison: Comparison) -> list[str]:
    """Return what the verdicts are about, a line each; none where there is nothing to compare."""
    judged = [item for row in comparison.rows if row.primary for item in row.contrasts]
    if not judged:
        return []
    return [
        _weights(comparison),
        *_sizes(comparison),
        *_transfers(judged),
        *_cautions(comparison),
        *_looks(comparison, judged),
        *_margins(comparison),
        *_images(comparison, judged),
    ]


def _weights(comparison: Comparison) -> str:
    design, mine = comparison.store.plan.pretrain_seeds, (comparison.claim, *comparison.others)
    said = {arm: _origin(comparison, arm) for arm in mine}
    each = listed([f"{title(arm)} {text}" for arm, text in said.items()])
    files = {arm: _files(comparison, arm) for arm in mine if arm != RANDOM}
    if design == "one" and max(files.values(), default=0) <= 1:
        count = {1: "one weights file", 2: "two weights files, one of each arm"}.get(len(files), "weights")
        return (
            f"About {count}: {each}. A verdict says which of them transfers better, not what another pre-training of "
            "the same method would give: intervals are over transfer seeds and test images."
        )
    if design == "one":
        return (
            f"About the weights files that were used: {each}. The study declares one pre-training of each arm, so the "
            "intervals do not tell the spread of pre-training from that of transfer."
        )
    alone = [title(arm) for arm, count in files.items() if count == 1]
    rest = f" Of {listed(alone)} there is one file, so they speak of that file alone." if alone else ""
    how = (
        "transfer seed s starts from pre-training s, so the intervals are over both seeds together"
        if design == "tied"
        else "every pre-training is transferred with the same seeds, so the intervals are over pre-training and "
        "transfer seeds, each by itself"
    )
    return (
        f"About methods of pre-training as they are set here: {each}; {how}, and over test images. A verdict says what "
        f"another pre-training, transfer and set of such images would give.{rest}"
    )


def _sizes(comparison: Comparison) -> Iterator[str]:
    """Yield the arms whose ViT has another size than that of the claim's arm: they are no matched comparison."""
    claim, apart = comparison.claim, dict[str, list[str]]()
    for arm in comparison.arms:
        if arm != claim and (found := _size(comparison, arm)) and (own := _size(comparison, claim)) and found != own:
            apart.setdefault(f"{found}, and that of {title(claim)} {own}", []).append(title(arm))
    for sizes, arms in apart.items():
        yield (
            f"NOT MATCHED, {title(claim)} and {listed(arms)}: the ViT of the latter has {sizes}. Their differences and "
            "verdicts are of the size too, and none of them speaks of the pre-training alone."
        )


def _size(comparison: Comparison, arm: str) -> str:
    """Return width and depth of the ViTs that were transferred, nothing where no record has them."""
    vits = [i.record.architecture for i in comparison.store.completed if i.arm == arm and i.line is not None]
    found = ((vit.get("embed_dim"), vit.get("depth")) for vit in vits)
    sizes = {(width, depth) for width, depth in found if isinstance(width, int) and isinstance(depth, int)}
    return " or ".join(f"{depth} blocks of width {width:,}" for width, depth in sorted(sizes))


def _transfers(judged: list[Contrast]) -> Iterator[str]:
    if few := [item for item in judged if item.lacks_transfers]:
        shapes = listed([*dict.fromkeys(f"{item.n} x {item.transfers}" for item in few)])
        yield (
            f"WARNING: {shapes} pre-trainings and transfers of each: where pre-trainings outnumber transfers, a 95 % "
            "interval may hold as little as 89 %, and with one transfer of each far less (docs/statistics.md), so "
            "there is no verdict. Add transfer seeds."
        )
    if any(item.lacks_pretrainings for item in judged):
        yield (
            "WARNING: one pre-training of each arm so far: the intervals are over transfers alone, so there is no "
            "verdict. Add pre-trainings."
        )


def _cautions(comparison: Comparison) -> Iterator[str]:
    """Yield what makes verdicts weak whatever their p, with the tasks of which it holds."""
    tasks: dict[str, dict[str, None]] = {}
    for item in (item for row in comparison.rows if row.primary for item in row.contrasts):
        if text := caution(item):
            tasks.setdefault(text, {})[quoted(item.task)] = None
    for text, names in tasks.items():
        yield f"WARNING, {listed([*names])}: {text}."


def _origin(comparison: Comparison, arm: str) -> str:
    if arm == RANDOM:
        return "(drawn anew with every seed)"
    trained = {i.record.seed for i in comparison.store.completed if i.arm == arm and i.pretrained}
    if trained:
        return "(pre-trained here once)" if len(trained) == 1 else f"(pre-trained here with {len(trained)} seeds)"
    names = sorted(
        {
            str(item.record.weights_path or item.record.weights_source)
            for item in comparison.store.completed
            if item.arm == arm and item.line is not None
        }
    )
    if not names:
        return "(not run)"
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"(the file {quoted(names[0])}{more}, whose pre-training is no part of this)"


def _files(comparison: Comparison, arm: str) -> int:
    """Return from how many different weights the transfers of an arm start."""
    started = [item.record for item in comparison.store.completed if item.arm == arm and item.line is not None]
    return len({record.weights_sha256 or record.weights_path for record in started})


def _looks(comparison: Comparison, judged: list[Contrast]) -> Iterator[str]:
    looks = comparison.store.plan.looks
    unit = "pre-trainings" if comparison.store.plan.pretrain_seeds == "crossed" else "seeds"
    if not looks:
        yield (
            f"No looks are declared: the 5 % of a false verdict hold if the number of {unit} was fixed before the "
            "first verdict was read."
        )
        yield from _added(comparison)
        return
    spent = ", over which alpha is spent" if len(looks) > 1 else ""
    yield f"Declared: verdicts are read at {listed([str(look) for look in looks])} {unit}{spent}."
    for item in judged:
        if item.look is not None and item.look.undeclared:
            yield (
                f"Added though no look at them was declared, {item.task}, {title(item.arm)} minus "
                f"{title(item.reference)}: seeds {_some(item.look.undeclared)}. They take no part in "
                "differences and verdicts; declare another study for them."
            )


def _added(comparison: Comparison) -> Iterator[str]:
    """Yield the seeds of each task that came to a study without looks after others had run."""
    for line in comparison.lines:
        mine = {i.record.seed for i in comparison.store.completed if i.line == line and i.added}
        if mine:
            yield (
                f"Added after other seeds had run, and no look was declared, {line.label}: seeds "
                f"{_some(sorted(mine))}. Where they were added since a verdict did not settle, false verdicts are more "
                "than 5 %."
            )


def _some(seeds: Sequence[int]) -> str:
    """Return the first seeds, and how many more there are."""
    more = f" and {len(seeds) - MOST_LISTED} more" if len(seeds) > MOST_LISTED else ""
    return ", ".join(map(str, seeds[:MOST_LISTED])) + more


def _margins(comparison: Comparison) -> Iterator[str]:
    margins = comparison.store.plan.margins
    if margins:
        each = ", ".join(f"{name} {value:g}" for name, value in margins.items())
        yield f"Declared: differences below these margins are none: {each}."
    known = {name for row in comparison.rows for name in (row.line.task, row.task, row.metric.name)}
    if unused := sorted(margins.keys() - known):
        yield f"Margins of what is no task and no metric here: {', '.join(unused)}."


def _images(comparison: Comparison, judged: list[Contrast]) -> Iterator[str]:
    for task, item in {item.task: item for item in judged if item.grouped is not None}.items():
        yield f"{task}: {item.grouped:,} test images in {item.images} groups, which are drawn whole."
    for task, correlation in comparison.alike:
        yield (
            f"WARNING, {task}: test images with consecutive names score alike (correlation {correlation:.2f}), as "
            "frames of one video do, and no groups are named: intervals over images are then too narrow. Name the "
            "groups in the study (docs/statistics.md)."
        )
