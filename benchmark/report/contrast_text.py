"""What a report says of one comparison of two arms: verdict, images, parts of the variance, what would settle it."""

from benchmark.compare.contrast import Contrast
from benchmark.compare.needed import Needed
from benchmark.report.names import title

NUMBERS = {1: "one seed", 2: "two seeds", 3: "three seeds", 4: "four seeds"}
FEW_SEEDS = 3  # with two, a quantile of one degree of freedom stands on one difference of differences
FEW_STEPS = 50  # of training: a head has hardly moved, whatever the weights below it


def judged(item: Contrast) -> str:
    """Return the sentence that a verdict is on."""
    return f"{title(item.arm)} transfers better than {title(item.reference)}"


def verdict_text(item: Contrast) -> str:
    """Return the verdict behind the sentence that it judges, and what else must be known to read it."""
    return f"{judged(item)}: {outcome_text(item)}" + (f" ({text})" if (text := caution(item)) else "")


def outcome_text(item: Contrast) -> str:
    """Return the verdict alone, with a word where a difference is found that is smaller than the margin."""
    if item.floor:
        return "no verdict, nothing was learned"
    if item.verdict == "equivalent":
        return "equivalent within the margin"
    small = item.verdict != "inconclusive" and item.within_margin
    return f"{item.verdict}, within the margin" if small else str(item.verdict)


def seeds_text(item: Contrast) -> str:
    """Return over how many seeds a difference is."""
    if item.transfers is not None:
        each = "1 transfer" if item.transfers == 1 else f"{item.transfers} transfers"
        return f"{item.n} pre-trainings with {each} each" if item.n > 1 else f"1 pre-training with {each}"
    return NUMBERS.get(item.n, f"{item.n} seeds")


def caution(item: Contrast) -> str:
    """Return why a verdict that has fallen is weak whatever its p, empty where nothing says so."""
    if item.verdict in (None, "inconclusive"):
        return ""
    few = item.n < FEW_SEEDS
    if item.steps is not None and item.steps < FEW_STEPS:
        return f"{seeds_text(item)} of {item.steps} steps each: too {'little' if few else 'short'} to rely on"
    return f"{seeds_text(item)}: too few to rely on" if few else ""


def images_text(item: Contrast) -> str:
    """Return of how many images an interval speaks; empty where it takes them as they are."""
    if item.images is None:
        return ""
    return f"{item.images:,}" if item.grouped is None else f"{item.grouped:,} in {item.images:,} groups"


def variance_text(item: Contrast) -> str:
    """Return what part of the variance of the mean comes from what; empty where nothing varies."""
    parts = item.components
    if parts is None or (total := parts.spread.total) <= 0:
        return ""
    first = {"one": "transfer", "tied": "pre-training and transfer", "crossed": "pre-training"}[item.design]
    if item.lacks_pretrainings:
        first = "transfer"
    elif item.design == "crossed" and item.transfers is None:
        first = "pre-training and transfer"
    shares = {first: parts.of_seeds}
    if parts.transfers is not None:
        shares["transfer"] = parts.of_transfers
    if parts.images is not None:
        shares["images" if item.grouped is None else "groups of images"] = parts.of_images
    return ", ".join(f"{name} {100 * max(value, 0) / total:.0f} %" for name, value in shares.items())


def needed_text(item: Contrast) -> str:
    """Return what would settle an inconclusive comparison, empty where nothing is known of it."""
    if item.floor:
        return f"nothing was learned ({item.metric.name} {item.metric.text(0.0)} in both arms): train longer"
    if item.lacks_transfers:
        return f"{item.n} transfers of each pre-training or more"
    if item.lacks_pretrainings:
        return "two pre-trainings of each arm or more"
    if item.needed is None:
        return "two seeds or more" if item.verdict == "inconclusive" and item.n < 2 else ""
    text = _ways(item, item.needed)
    if item.needed_equivalence is None:
        return text
    return f"{text}; equivalence: {_ways(item, item.needed_equivalence)}"


def _ways(item: Contrast, wanted: Needed) -> str:
    ways, now = [], item.images
    images = "images" if item.grouped is None else "groups of images"
    here = "" if now is None else f" on {now:,} {images}"
    if wanted.seeds is not None:
        ways.append(f"{_seeds(item, wanted.seeds)}{here}")
    if wanted.transfers is not None:
        ways.append(f"{wanted.transfers} transfers of each pre-training{here}")
    if wanted.images is not None:
        ways.append(f"{_seeds(item, item.n)} on {wanted.images:,} {images}")
    if wanted.both is not None:
        ways.append(f"{_seeds(item, wanted.both[0])} on {wanted.both[1]:,} {images}")
    what = "the difference is too near 0" if wanted is item.needed else "it is too near the margin"
    return f"about {' or '.join(ways)}" if ways else f"out of reach: {what}"


def _seeds(item: Contrast, count: int) -> str:
    """Return a number of what the intervals are over first."""
    if item.transfers is not None:
        return f"{count} pre-trainings"
    return f"{count} seeds" if item.design == "one" else f"{count} pre-trainings with a transfer each"
