"""A dataclass from plain values of any origin: every field has its declared type, or all that is wrong is said at once.

JSON has lists for tuples; for everything else a value must be what the field's annotation says. Checks are compiled
once per dataclass, since a table reads ten thousand records.
"""

import reprlib
import sys
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
Faults = list[str]
# read(value, place, faults): the value as the annotation has it; what is wrong goes into `faults`
Reader = Callable[[Any, str, Faults], Any]
SAID = 10  # faults of one message
LARGEST = sys.float_info.max  # NaN is not below it, nor are infinity and whole numbers that no float64 can hold


def from_json(cls: type[T], values: Any, *, place: str = "") -> T:
    """Return the dataclass `cls` from what `as_json` made; `place` is where the values stand in their file.

    Numbers of plain fields are finite; those in a dict by names (metrics, losses) may be NaN or infinite.

    Raises ValueError with every fault and its place (`run.seed: 'x' is no whole number`): a field that `cls` does not
    have or that is missing, a value of another type, and what `cls` itself refuses.
    """
    faults: Faults = []
    made = _dataclass(cls)(values, place, faults)  # type: ignore[arg-type]  # a dataclass type is hashable
    if faults:
        more = f"; and {len(faults) - SAID} more" if len(faults) > SAID else ""
        raise ValueError("; ".join(faults[:SAID]) + more)
    return cast(T, made)


def shown(value: Any) -> str:
    """Return a value as a message says it, shortened."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


@cache
def _dataclass(cls: Any) -> Reader:
    hints = get_type_hints(cls)
    own = [field for field in fields(cls) if field.init]
    readers = {field.name: _reader(hints[field.name]) for field in own}
    needed = {f.name for f in own if f.default is MISSING and f.default_factory is MISSING}

    def read(value: Any, place: str, faults: Faults) -> Any:
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            return _fault(faults, place, f"{shown(value)} is no object with the fields of {cls.__name__}")
        before = len(faults)
        found = {}
        for name, item in value.items():
            reader = readers.get(name)
            if reader is not None:
                found[name] = reader(item, f"{place}.{name}" if place else name, faults)
        if len(found) < len(value):
            unknown = ", ".join(sorted(str(name) for name in value.keys() - readers.keys()))
            _fault(faults, place, f"{cls.__name__} has no field {unknown}; it has {', '.join(sorted(readers))}")
        if missing := needed - found.keys():
            _fault(faults, place, f"{cls.__name__} needs {', '.join(sorted(missing))}, which is not there")
        if len(faults) > before:
            return None
        try:
            return cls(**found)
        except (ValueError, TypeError, ArithmeticError) as error:  # of its own check, for a value out of its range
            return _fault(faults, place, str(error).rstrip("."))

    return read


def _reader(hint: Any) -> Reader:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value, place, faults: value
    if origin in (Union, types.UnionType):
        return _either(args)
    if origin is Literal:
        return _one_of(args)
    if origin is tuple:
        return _items(_reader(args[0])) if args[1:] == (...,) else _fixed([_reader(arg) for arg in args])
    if origin is list:
        return _as_list(_items(_reader(args[0])))
    if origin is dict:
        return _mapping(_any_number if args[1] is float else _reader(args[1]))
    if is_dataclass(hint):
        return _dataclass(hint)  # type: ignore[arg-type]
    return _PLAIN[hint]


def _fault(faults: Faults, place: str, text: str) -> None:
    faults.append(f"{place}: {text}" if place else text)


def _whole(value: Any, place: str, faults: Faults) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST:
        return value
    return _fault(faults, place, f"{shown(value)} is no whole number")


def _number(value: Any, place: str, faults: Faults) -> Any:
    if isinstance(value, float | int) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST:
        return value
    return _fault(faults, place, f"{shown(value)} is no finite number")


def _any_number(value: Any, place: str, faults: Faults) -> Any:
    if isinstance(value, float):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST:
        return value
    return _fault(faults, place, f"{shown(value)} is no number")


def _flag(value: Any, place: str, faults: Faults) -> Any:
    return value if isinstance(value, bool) else _fault(faults, place, f"{shown(value)} is neither true nor false")


def _text(value: Any, place: str, faults: Faults) -> Any:
    return value if isinstance(value, str) else _fault(faults, place, f"{shown(value)} is no text")


def _path(value: Any, place: str, faults: Faults) -> Any:
    if isinstance(value, Path) or (isinstance(value, str) and "\0" not in value):
        return Path(value)
    return _fault(faults, place, f"{shown(value)} is no path")


def _nothing(value: Any, place: str, faults: Faults) -> Any:
    return None if value is None else _fault(faults, place, f"{shown(value)} is not null")


_PLAIN: dict[Any, Reader] = {
    int: _whole,
    float: _number,
    bool: _flag,
    str: _text,
    Path: _path,
    type(None): _nothing,
}


def _one_of(words: tuple[Any, ...]) -> Reader:
    kinds = {type(word) for word in words}

    def read(value: Any, place: str, faults: Faults) -> Any:
        if type(value) in kinds and value in words:
            return value
        return _fault(faults, place, f"{shown(value)} is none of {', '.join(map(str, words))}")

    return read


def _either(hints: tuple[Any, ...]) -> Reader:
    readers = [_reader(hint) for hint in hints if hint is not type(None)]
    optional = type(None) in hints

    def read(value: Any, place: str, faults: Faults) -> Any:
        if value is None and optional:
            return None
        tried: Faults = []
        for reader in readers:
            mine: Faults = []
            found = reader(value, place, mine)
            if not mine:
                return found
            tried += mine
        faults += tried
        return None

    return read


def _items(reader: Reader) -> Reader:
    def read(value: Any, place: str, faults: Faults) -> Any:
        if isinstance(value, list | tuple):
            return tuple([reader(item, f"{place}[{number}]", faults) for number, item in enumerate(value)])
        return _fault(faults, place, f"{shown(value)} is no list")

    return read


def _as_list(reader: Reader) -> Reader:
    def read(value: Any, place: str, faults: Faults) -> Any:
        found = reader(value, place, faults)
        return found if found is None else list(found)

    return read


def _fixed(readers: list[Reader]) -> Reader:
    def read(value: Any, place: str, faults: Faults) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(readers):
            return _fault(faults, place, f"{shown(value)} is no list of {len(readers)}")
        pairs = zip(readers, value, strict=True)
        return tuple([reader(item, f"{place}[{number}]", faults) for number, (reader, item) in enumerate(pairs)])

    return read


def _mapping(reader: Reader) -> Reader:
    def read(value: Any, place: str, faults: Faults) -> Any:
        if not isinstance(value, dict):
            return _fault(faults, place, f"{shown(value)} is no object")
        if names := [name for name in value if not isinstance(name, str)]:
            return _fault(faults, place, f"{shown(names[0])} is no name")
        return {name: reader(item, f"{place}.{name}", faults) for name, item in value.items()}

    return read
