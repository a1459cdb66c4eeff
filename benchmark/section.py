"""A mapping of a YAML file, read key by key: what is wrong is said with file, place, value and the way out."""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from benchmark.study import Flag

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # a part of a folder's name


class Section:
    """A mapping of the file; `take` each key once, then `end` refuses the rest."""

    def __init__(self, file: str, place: str, values: Any, known: Collection[str] = ()) -> None:
        self.file, self.place = file, place
        if not isinstance(values, dict):
            raise ValueError(
                f"{file}: {place or 'the file'} is {values!r}; it must be a mapping, `key: value` by line."
            )
        for key in values:
            if not isinstance(key, str):
                where = f"{place}: " if place else ""
                raise ValueError(f"{file}: {where}the key {key!r} is read as no text; put it in quotes.")
        self.values: dict[str, Any] = dict(values)
        self.known = {*known}

    def wrong(self, key: str, what: str) -> ValueError:
        """Return an error about a key of this section."""
        place = f"{self.place}.{key}" if self.place else key
        return ValueError(f"{self.file}: {place}: {what}.")

    def has(self, key: str) -> bool:
        """Whether the file has the key."""
        self.known.add(key)
        return key in self.values

    def take(self, key: str, read: Callable[[Any], T], default: T | None = None) -> T:
        """Return a value as `read` makes it, which raises ValueError for one that is none."""
        if not self.has(key):
            if default is None:
                raise self.wrong(key, "missing")
            return default
        value = self.values.pop(key)
        try:
            return read(value)
        except ValueError as error:
            raise self.wrong(key, f"{value!r} is {error}") from None

    def maybe(self, key: str, read: Callable[[Any], T]) -> T | None:
        """Return a value, or None where the key is not there."""
        return self.take(key, read) if self.has(key) else None

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        return self.take(key, text, default)

    def name(self, key: str) -> str:
        """Return a text that may be a part of a folder's name."""
        found = self.text(key)
        self.check_name(key, found)
        return found

    def check_name(self, key: str, found: str) -> None:
        """Raise ValueError for what cannot be a part of a folder's name."""
        if not NAME.fullmatch(found):
            raise self.wrong(key, f"{found!r} must be of letters, digits, - _ . + and begin with a letter or digit")

    def each(
        self, key: str, read: Callable[[Any], T], *, hint: str, default: tuple[T, ...] | None = None
    ) -> tuple[T, ...]:
        """Return the values of a list that is not empty."""
        if not self.has(key) and default is not None:
            return default
        values = self.take(key, lambda value: value)
        if not isinstance(values, list) or not values:
            raise self.wrong(key, f"{values!r} must be a list of one or more, for instance {hint}")
        found = []
        for number, value in enumerate(values):
            try:
                found.append(read(value))
            except ValueError as error:
                raise self.wrong(f"{key}[{number}]", f"{value!r} is {error}") from None
        return tuple(found)

    def check_distinct(self, key: str, values: tuple[Any, ...]) -> None:
        """Raise ValueError for a value that comes twice."""
        if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
            raise self.wrong(key, f"{twice[0]} comes twice; give each once")

    def choice(self, key: str, options: Collection[T], default: T | None = None) -> T:
        """Return one of the options. Raises ValueError that lists them."""
        if default is None and not self.has(key):
            raise self.wrong(key, f"missing; it is one of {', '.join(map(str, options))}")
        found: Any = self.take(key, lambda value: value, default)
        if found not in options:
            raise self.wrong(
                key, f"{found!r} is not there; it is one of {', '.join(map(str, options))}{_like(found, options)}"
            )
        return found

    def section(self, key: str, default: dict[str, Any] | None = None) -> "Section":
        """Return a section of this section."""
        values = self.take(key, lambda value: value, default)
        return Section(self.file, f"{self.place}.{key}" if self.place else key, values)

    def named(
        self, key: str, *, default: dict[str, Any] | None = None, scalars: Mapping[str, dict[str, Any]] | None = None
    ) -> list[tuple[str, "Section"]]:
        """Return sections by their names; a word of `scalars` stands for a section."""
        whole = self.section(key, default)
        if not whole.values and default is None:
            raise self.wrong(key, "is empty; name one or more")
        found = []
        for name, values in whole.values.items():
            whole.check_name(name, name)
            if scalars and isinstance(values, str) and values in scalars:
                values = {values: True}
            found.append((name, Section(self.file, f"{whole.place}.{name}", values)))
        return found

    def flags(self, allowed: Collection[str], tool: str) -> tuple[Flag, ...]:
        """Return all keys that are left as flags of a tool, and refuse those that it does not have."""
        self.known |= set(allowed)
        self.end(f"{tool} has no such flag, nor has this section such a key")
        return tuple(Flag(name, self._flag(name, value)) for name, value in self.values.items())

    def end(self, what: str = "no such key") -> None:
        """Raise ValueError for a key that nothing has asked for."""
        for key in self.values:
            if key not in self.known:
                listed = ", ".join(sorted(self.known))
                raise self.wrong(key, f"{what}; there are: {listed}{_like(key, self.known)}")

    def _flag(self, key: str, value: Any) -> bool | tuple[str, ...]:
        if isinstance(value, bool):
            return value
        values = value if isinstance(value, list) else [value]
        if not values or any(not isinstance(item, str | int | float) or isinstance(item, bool) for item in values):
            raise self.wrong(key, f"{value!r} is no value of a flag; give a number, a text, true, false or a list")
        return tuple(str(item) for item in values)


def _like(found: Any, options: Collection[Any]) -> str:
    near = difflib.get_close_matches(str(found), [str(option) for option in options], n=1)
    return f". Did you mean {near[0]}?" if near else ""


def text(value: Any) -> str:
    """Return a text that is not empty. Raises ValueError for anything else."""
    if not isinstance(value, str) or not value:
        raise ValueError("no text; put it in quotes if it should be one")
    return value


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)  # YAML 1.1 reads 1e-3 as text
    except (TypeError, ValueError):
        raise ValueError("no number") from None


def positive(value: Any) -> float:
    """Return a number above 0. Raises ValueError for anything else."""
    if not 0 < (number := _number(value)) < float("inf"):
        raise ValueError("not above 0")
    return number


def share(value: Any) -> float:
    """Return a number above 0 and at most 1. Raises ValueError for anything else."""
    if not 0 < (number := _number(value)) <= 1:
        raise ValueError("no share; give a number above 0 and at most 1 (1 % is 0.01)")
    return number


def part(value: Any) -> float:
    """Return a number between 0 and 1. Raises ValueError for anything else."""
    if not 0 < (number := _number(value)) < 1:
        raise ValueError("no part; give a number between 0 and 1 (a fifth is 0.2)")
    return number


def whole(value: Any) -> int:
    """Return a whole number from 0. Raises ValueError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("not a whole number from 0")
    return value
