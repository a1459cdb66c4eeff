"""What a run changed of the recipe that it names, and what the recipe itself changed of the one it reproduces."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from engine.config import Duration, RunConfig, as_json, differences
from engine.functions import source_of

R = TypeVar("R", bound=Callable[[], Any])

IMAGENET_1K = 1_281_167  # training images
# which data, not how it is trained
NOT_A_DEPARTURE = frozenset(
    {
        "seed",
        "train_split",
        "val_split",
        "train_json",
        "val_json",
        "train_list",
        "layout",
        "tokenizer",
        "probe_data",
        "probe_images",
        "channel_mean",
        "channel_std",
    }
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


def with_augment_source(config: Any) -> Any:
    """Return the configuration with what the augmentation that it declares is, by its file, which is not run.

    Raises FileNotFoundError or ValueError for a file or module that is not there.
    """
    if config.run.augment_function is None:
        return config
    return replace(config, run=replace(config.run, augment_source=source_of(config.run.augment_function)))


def with_short_warmup(config: Any, recipe: Any, *, images: int) -> Any:
    """Return the configuration with a warm-up that is as much shorter than the recipe's as the run is.

    Only where the recipe's own would cover the whole of a run whose length was changed, and was itself left as it is;
    elsewhere the configuration as it is. `images` is the size of the training set.
    """
    run: RunConfig = config.run
    usual: RunConfig = recipe.run
    if run.length == usual.length or run.schedule.warmup != usual.schedule.warmup:
        return config
    sizes = {"batch_size": run.batch_size, "dataset_size": images}
    total, whole, warmup = (d.steps(**sizes) for d in (run.length, usual.length, run.schedule.warmup))
    if not 0 < total <= warmup:
        return config
    steps = min(warmup * total // max(1, whole), total - 1)
    return replace(config, run=replace(run, schedule=replace(run.schedule, warmup=Duration(steps, "steps"))))


def shortened(before: Any, after: Any) -> tuple[str, ...]:
    """Return what a run says of it where `with_short_warmup` made `after` of `before`, nothing where it is the same."""
    old, new = before.run.schedule.warmup, after.run.schedule.warmup
    if old == new:
        return ()
    said = f"the recipe's warm-up of {old.value:g} {old.unit} would cover the whole run"
    return (f"{said}; it is shortened with the run, to {new.value:g} steps (--warmup gives another)",)
