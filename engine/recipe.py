"""What a run changed of the recipe that it names, and what the recipe itself changed of the one it reproduces."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

from engine.config import as_json, differences

R = TypeVar("R", bound=Callable[[], Any])

IMAGENET_1K = 1_281_167  # training images
# which data, not how it is trained
NOT_A_DEPARTURE = frozenset(
    {"seed", "train_split", "val_split", "train_json", "val_json", "train_list", "layout", "tokenizer"}
)


def departs(*ways: str) -> Callable[[R], R]:
    """Return a decorator that states in which ways a recipe differs from the published one that it reproduces."""

    def mark(recipe: R) -> R:
        recipe.departs = ways  # type: ignore[attr-defined]
        return recipe

    return mark


def drops_last(code: str, *, epochs: int, batch_size: int, images: int = IMAGENET_1K) -> str:
    """Return the departure from code whose loader drops the incomplete last batch of every epoch."""
    theirs, ours = epochs * (images // batch_size), math.ceil(epochs * images / batch_size)
    return (
        f"images are one stream, and a batch may hold the end of one epoch and the beginning of the next; {code} drops "
        f"the incomplete last batch of each: {theirs:,} steps of {batch_size:,} images, where these are {ours:,}"
    )


def departures(recipe: Callable[[], Any], config: Any) -> tuple[str, ...]:
    """Return the recipe's own departures, then `field: recipe's value -> run's value` for all that the run changed."""
    changed = differences(as_json(recipe()), as_json(config), without=NOT_A_DEPARTURE)
    return (*getattr(recipe, "departs", ()), *changed)
