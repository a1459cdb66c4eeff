"""A mapping of a YAML file, read key by key: all that is wrong is said, with file, place, value and the way out."""

import difflib
import os
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast

from benchmark.study.spec import Flag
from files.naming import LONGEST

T = TypeVar("T")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")  # a part of a folder's name
LONGEST_NAME = 200  # characters, so that names of a task and an arm together are still one of a file
SHOWN = 100  # characters of a value in a message
MOST_SAID = 30
LARGEST = 2**63 - 1  # of a whole number
MOST_HOURS = 1_000_000


class Errors:
    """What is wrong with a file, collected while it is read to its end."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.found: list[str] = []

    def say(self, place: str, what: str) -> None:
        """Keep an error with its place in the file."""
        self.found.append(f"{self.file}: {place + ': ' if place else ''}{what}.")

    def refuse(self) -> None:
        """Raise ValueError with all that was said, a line each; nothing where nothing was."""
        if self.found:
            rest = len(self.found) - MOST_SAID
            more = [f"{self.file}: and {rest} more."] if rest > 0 else []
            raise ValueError("\n".join([*self.found[:MOST_SAID], *more]))


class Section:
    """A mapping of the file; `take` each key once, then `end` refuses the rest.

    What is wrong goes to the file's `errors`, and reading goes on with None or nothing in its place: nothing that was
    read may be used before `Errors.refuse`.
    """

    def __init__(self, errors: Errors, place: str, values: Any, known: Collection[str] = ()) -> None:
        self.errors, self.place = errors, place
        if not isinstance(values, dict):
            self.errors.say("", f"{place or 'the file'} is {shown(values)}; it must be a mapping, `key: value` by line")
            self.errors, values = Errors(errors.file), {}  # that its keys are missing is said by this
        for key in values:
            if not isinstance(key, str):
                self.errors.say(place, f"the key {shown(key)} is read as no text; put it in quotes")
        self.values: dict[str, Any] = {key: value for key, value in values.items() if isinstance(key, str)}
        self.known = {*known}

    def wrong(self, key: str, what: str) -> None:
        """Say what is wrong with a key of this section."""
        self.errors.say(self._at(key), what)

    def has(self, key: str) -> bool:
        """Whether the file has the key."""
        self.known.add(key)
        return key in self.values

    def take(self, key: str, read: Callable[[Any], T], default: T | None = None) -> T:
        """Return a value as `read` makes it, which raises ValueError for one that is none."""
        if not self.has(key):
            if default is None:
                self.wrong(key, "missing")
            return cast(T, default)
        value = self.values.pop(key)
        try:
            return read(value)
        except ValueError as error:
            self.wrong(key, f"{shown(value)} is {error}")
            return cast(T, default)

    def maybe(self, key: str, read: Callable[[Any], T]) -> T | None:
        """Return a value, or None where the key is not there."""
        return self.take(key, read) if self.has(key) else None

    def text(self, key: str, default: str | None = None) -> str:
        """Return a text."""
        return self.take(key, text, default)

    def path(self, key: str, default: str | None = None) -> str:
        """Return a text that is a file or folder."""
        return self.take(key, path, default)

    def name(self, key: str) -> str:
        """Return a text that may be a part of a folder's name."""
        found = self.text(key)
        if found is not None:
            self.check_name(key, found)
        return found

    def check_name(self, key: str, found: str) -> None:
        """Refuse what cannot be a part of a folder's name."""
        if not NAME.fullmatch(found):
            self.wrong(key, f"{shown(found)} must be of letters, digits, - _ . + and begin with a letter or digit")
        elif len(found) > LONGEST_NAME:
            self.wrong(key, f"a name of {len(found)} characters; give it {LONGEST_NAME} at most")

    def each(
        self, key: str, read: Callable[[Any], T], *, hint: str, default: tuple[T, ...] | None = None
    ) -> tuple[T, ...]:
        """Return the values of a list that is not empty."""
        if not self.has(key):
            if default is None:
                self.wrong(key, "missing")
            return default or ()
        values = self.values.pop(key)
        if not isinstance(values, list) or not values:
            self.wrong(key, f"{shown(values)} must be a list of one or more, for instance {hint}")
            return ()
        found = []
        for number, value in enumerate(values):
            try:
                found.append(read(value))
            except ValueError as error:
                self.wrong(f"{key}[{number}]", f"{shown(value)} is {error}")
        return tuple(found)

    def check_distinct(self, key: str, values: tuple[Any, ...]) -> None:
        """Refuse a value that comes twice."""
        if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
            self.wrong(key, f"{twice[0]} comes twice; give each once")

    def choice(self, key: str, options: Collection[T], default: T | None = None) -> T:
        """Return one of the options; where it is none of them they are listed, and None comes back.

        Where there are no options None comes back too: these were refused before.
        """
        listed = ", ".join(map(str, options))
        if not options:  # nothing can be said of the choice, and what is wrong with the options is said already
            self.known.add(key)
            self.values.pop(key, None)
            return cast(T, None)
        if not self.has(key):
            if default is None:
                self.wrong(key, f"missing; it is one of {listed}")
            return cast(T, default)
        found = self.values.pop(key)
        if any(found == option and isinstance(found, str) for option in options):
            return cast(T, found)
        self.wrong(key, f"{shown(found)} is not there; it is one of {listed}{_like(found, options)}")
        return cast(T, None)

    def section(self, key: str, default: dict[str, Any] | None = None) -> "Section":
        """Return a section of this section."""
        if not self.has(key) and default is None:
            self.wrong(key, "missing")
            return Section(Errors(self.errors.file), self._at(key), {})
        return Section(self.errors, self._at(key), self.values.pop(key, default))

    def named(
        self, key: str, *, default: dict[str, Any] | None = None, scalars: Mapping[str, dict[str, Any]] | None = None
    ) -> list[tuple[str, "Section"]]:
        """Return sections by their names; a word of `scalars` stands for a section."""
        whole = self.section(key, default)
        if not whole.values and default is None:
            whole.errors.say(self._at(key), "is empty; name one or more")
        found = []
        for name, values in whole.values.items():
            whole.check_name(name, name)
            if scalars and isinstance(values, str) and values in scalars:
                values = {values: True}
            found.append((name, Section(whole.errors, f"{whole.place}.{name}", values)))
        return found

    def flags(self, allowed: Collection[str], tool: str) -> tuple[Flag, ...]:
        """Return all keys that are left as flags of a tool, and refuse those that it does not have."""
        self.known |= set(allowed)
        self.end(f"{tool} has no such flag, nor has this section such a key")
        return tuple(Flag(name, self._flag(name, value)) for name, value in self.values.items())

    def end(self, what: str = "no such key") -> None:
        """Refuse every key that nothing has asked for."""
        for key in self.values:
            if key not in self.known:
                listed = ", ".join(sorted(self.known))
                self.wrong(shown(key)[1:-1], f"{what}; there are: {listed}{_like(key, self.known)}")

    def _at(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def _flag(self, key: str, value: Any) -> bool | tuple[str, ...]:
        if isinstance(value, bool):
            return value
        values = value if isinstance(value, list) else [value]
        if not values or any(not isinstance(item, str | int | float) or isinstance(item, bool) for item in values):
            self.wrong(key, f"{shown(value)} is no value of a flag; give a number, a text, true, false or a list")
            return False
        try:
            return tuple(argument(item) for item in values)
        except ValueError as error:
            self.wrong(key, f"{shown(value)} is {error}")
            return False


def _like(found: Any, options: Collection[Any]) -> str:
    near = difflib.get_close_matches(str(found), [str(option) for option in options], n=1)
    return f". Did you mean {near[0]}?" if near else ""


def shown(value: Any) -> str:
    """Return a value as a message shows it."""
    try:
        found = repr(value)
    except ValueError:  # a number of more than 4,300 digits
        return "a number too long to show"
    return found if len(found) <= SHOWN else f"{found[:SHOWN]}... ({len(found):,} characters)"


def text(value: Any) -> str:
    """Return a text that is not empty. Raises ValueError for anything else."""
    if not isinstance(value, str) or not value:
        raise ValueError("no text; put it in quotes if it should be one")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("no text; it holds half a surrogate pair") from None
    return value


def path(value: Any) -> str:
    """Return a file or folder. Raises ValueError for anything else."""
    if not isinstance(value, str) or not value:
        raise ValueError("no text; put it in quotes if it should be one")
    try:
        longest = max(len(os.fsencode(name)) for name in value.split("/"))
    except UnicodeEncodeError:
        raise ValueError("no path; it holds half a surrogate pair") from None
    if "\0" in value or longest > LONGEST:
        raise ValueError(f"no path; each name in it has at most {LONGEST} bytes, and none a zero byte")
    return value


def argument(value: Any) -> str:
    """Return one word of a command line that stays the value of its flag. Raises ValueError for any other."""
    try:
        found = str(value)
    except ValueError:
        raise ValueError("too long a number") from None
    if "\0" in found:
        raise ValueError("no value of a flag; it has a zero byte")
    if found.startswith("-") and not _is_number(found):
        raise ValueError("no value of a flag; a word that begins with - would be a flag of its own")
    return found


def recipe(value: Any) -> str:
    """Return the name of a recipe. Raises ValueError for what is none or would be a flag."""
    return argument(text(value))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _number(value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)  # YAML 1.1 reads 1e-3 as text
    except (TypeError, ValueError, OverflowError):
        raise ValueError("no number") from None


def positive(value: Any) -> float:
    """Return a number above 0. Raises ValueError for anything else."""
    if not 0 < (number := _number(value)) < float("inf"):
        raise ValueError("not above 0")
    return number


def hours(value: Any) -> float:
    """Return a time above 0. Raises ValueError for anything else."""
    if (number := positive(value)) > MOST_HOURS:
        raise ValueError(f"too long; give {MOST_HOURS:,} hours or less")
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
    if value > LARGEST:
        raise ValueError(f"too large; give {LARGEST:,} or less")
    return value
