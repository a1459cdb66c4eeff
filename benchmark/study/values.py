"""Kinds of values in a study file: what each may be, and what is said of one that is not."""

import os
import re
from collections.abc import Callable
from dataclasses import fields
from itertools import pairwise
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from backbones.config import ViTConfig
from benchmark.study.options import wrong
from benchmark.study.plan import check_pattern
from files.naming import LONGEST

DIFFER = ("architecture", *(f"architecture.{f.name}" for f in fields(ViTConfig)))
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # a part of a folder's name
LONGEST_NAME = 200  # characters, so that names of a task and an arm together are still one of a file
LARGEST = 2**63 - 1  # of a whole number
MOST_HOURS = 1_000_000


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("must be of letters, digits, - _ . + and begin with a letter or digit")
    if len(value) > LONGEST_NAME:
        raise ValueError(f"is a name of {len(value)} characters; give it {LONGEST_NAME} at most")
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("is no text; put it in quotes if it should be one")
    try:
        longest = max(len(os.fsencode(name)) for name in value.split("/"))
    except UnicodeEncodeError:
        raise ValueError("is no path; it holds half a surrogate pair") from None
    if "\0" in value or longest > LONGEST:
        raise ValueError(f"is no path; each name in it has at most {LONGEST} bytes, and none a zero byte")
    return value


def _recipe(value: Any) -> str:
    if _path(value).startswith("-"):
        raise ValueError("is no value of a flag; a word that begins with - would be a flag of its own")
    return str(value)


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)  # YAML 1.1 reads 1e-3 as text
    except (TypeError, ValueError, OverflowError):
        raise ValueError("is no number") from None


def _between(low: float, high: float, what: str, *, ends: bool = False) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        if not (low < (number := _number(value)) < high or (ends and number == high)):
            raise ValueError(what)
        return number

    return check


def _hours(value: float) -> float:
    if value > MOST_HOURS:
        raise ValueError(f"is too long; give {MOST_HOURS:,} hours or less")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("is not a whole number from 0")
    if value > LARGEST:
        raise ValueError(f"is too large; give {LARGEST:,} or less")
    return value


def _differing(value: Any) -> str:
    if not isinstance(value, str) or value not in DIFFER:
        raise ValueError(f"is not there; give {DIFFER[0]} for all of it, or one of {', '.join(DIFFER[1:])}")
    return value


def rising(values: tuple[int, ...]) -> tuple[int, ...]:
    """Return numbers that rise from 2 on. Raises ValidationError."""
    if values[0] < 2 or any(a >= b for a, b in pairwise(values)):
        raise wrong(f"{[*values]} must rise, from two seeds on")
    return values


def _pattern(value: str) -> str:
    try:
        check_pattern(value)
    except ValueError as error:
        raise wrong(str(error)) from None
    return value


def listed(hint: str) -> BeforeValidator:
    """Return a reader of lists that are not empty."""

    def check(values: Any) -> Any:
        if not isinstance(values, list | tuple) or not values:
            raise ValueError(f"must be a list of one or more, for instance {hint}")
        return values

    return BeforeValidator(check)


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return values that are all different. Raises ValidationError."""
    if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise wrong(f"{twice[0]} comes twice; give each once")
    return values


Text = Annotated[str, BeforeValidator(_path)]
Name = Annotated[str, BeforeValidator(_path), AfterValidator(_name)]
Recipe = Annotated[str, BeforeValidator(_recipe)]
Whole = Annotated[int, BeforeValidator(_whole)]
Positive = Annotated[float, BeforeValidator(_between(0, float("inf"), "is not above 0"))]
Hours = Annotated[Positive, AfterValidator(_hours)]
Fraction = Annotated[
    float,
    BeforeValidator(_between(0, 1, "is no fraction; give a number above 0 and at most 1 (1 % is 0.01)", ends=True)),
]
Between = Annotated[
    float, BeforeValidator(_between(0, 1, "is no part; give a number between 0 and 1 (a fifth is 0.2)"))
]
Differing = Annotated[str, BeforeValidator(_differing)]
Seeds = Annotated[tuple[Whole, ...], AfterValidator(distinct), listed("[0, 1, 2]")]
Pattern = Annotated[Text, AfterValidator(_pattern)]
