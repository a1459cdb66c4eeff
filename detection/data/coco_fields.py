"""Fields of COCO's records: what is a number, an id or a crowd, and how a record is called in a message."""

import math
from pathlib import Path
from typing import Any

MOST_SHOWN = 100  # characters of a value in a message


def field(record: Any, key: str, path: Path, kind: str) -> Any:
    """Return a record's field. Raises ValueError that shows the record where there is none."""
    if not isinstance(record, dict) or key not in record:
        raise ValueError(f"{path}: an entry of kind {kind} has no {key!r}: {shown(record)}")
    return record[key]


def is_number(value: Any) -> bool:
    """Whether a value is a finite number that a float can hold; true and false are none."""
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def is_id(value: Any) -> bool:
    """Whether a value is a whole number or text; true would be taken for 1."""
    return type(value) in (int, str)


def shown(value: Any) -> str:
    """Return the beginning of a value as a message shows it."""
    text = repr(value)
    return text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + "..."


def name_of(annotation: dict[str, Any]) -> str:
    """Return what a message calls an annotation."""
    number = annotation.get("id", "without id")
    return f"annotation {number if isinstance(number, str) and len(number) <= MOST_SHOWN else shown(number)}"


def example(annotation: dict[str, Any], image: dict[str, Any]) -> str:
    """Return what a message calls an annotation of an image."""
    return f"{name_of(annotation)} of {image['file_name'][:MOST_SHOWN]}"
