"""What a report calls an arm, and lists of names as a sentence has them."""

from collections.abc import Sequence

RANDOM = "random"  # the arm that starts from no weights
TITLES = {"random": "random init", "supervised": "supervised", "mae": "MAE", "beit": "BEiT", "moco_v3": "MoCo v3"}


def title(arm: str) -> str:
    """Return what a table calls an arm, between quotes where its name would fall apart in a sentence."""
    return quoted(TITLES.get(arm, arm))


def quoted(name: str) -> str:
    """Return the name, between quotes where it holds what divides a sentence."""
    return f'"{name}"' if any(mark in name for mark in (",", ";", ": ")) else name


def listed(names: Sequence[str], last: str = "and") -> str:
    """Return names as a sentence has them."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {last} {names[-1]}"
