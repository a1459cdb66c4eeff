"""JSON that carries the digest of its own content, so that a flipped bit is found when it is read again."""

import hashlib
import json
from typing import Any

SEAL = "sha256"


def sealed(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values with the digest of what JSON makes of them."""
    return {**values, SEAL: _digest(values)}


def unsealed(values: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the values of file `name` without their digest, unchecked where they have none.

    Raises ValueError where the digest is of another content.
    """
    rest = {key: value for key, value in values.items() if key != SEAL}
    if SEAL in values and values[SEAL] != _digest(rest):
        raise ValueError(
            f"{name}: its content is not what was written (its {SEAL} is of another); it is damaged, or was edited. "
            f"Restore it from a copy or make it again; if the edit is meant, remove its {SEAL!r}."
        )
    return rest


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
