"""What a run changed of the recipe that it names, and what the recipe itself changed of the one it reproduces."""

from collections.abc import Callable
from typing import Any, TypeVar

from engine.config import as_json, differences

R = TypeVar("R", bound=Callable[[], Any])

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


def departures(recipe: Callable[[], Any], config: Any) -> tuple[str, ...]:
    """Return the recipe's own departures, then `field: recipe's value -> run's value` for all that the run changed."""
    changed = differences(as_json(recipe()), as_json(config), without=NOT_A_DEPARTURE)
    return (*getattr(recipe, "departs", ()), *changed)
