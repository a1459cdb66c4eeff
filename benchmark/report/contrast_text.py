"""What a report says of one comparison of two arms: verdict, images, parts of the variance, what would settle it."""

from benchmark.compare.contrast import Contrast
from benchmark.compare.needed import Needed


def verdict_text(item: Contrast) -> str:
    """Return the verdict of a cell, with a word where a difference is found that is smaller than the margin."""
    if item.verdict == "equivalent":
        return "equivalent within the margin"
    small = item.verdict != "inconclusive" and item.within_margin
    return f"{item.verdict}, within the margin" if small else str(item.verdict)


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
    if item.design == "crossed" and parts.transfers is None:
        first = "pre-training and transfer"
    shares = {first: parts.of_seeds}
    if parts.transfers is not None:
        shares["transfer"] = parts.of_transfers
    if parts.images is not None:
        shares["images" if item.grouped is None else "groups of images"] = parts.of_images
    return ", ".join(f"{name} {100 * max(value, 0) / total:.0f} %" for name, value in shares.items())


def needed_text(item: Contrast) -> str:
    """Return what would settle an inconclusive comparison, empty where nothing is known of it."""
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
