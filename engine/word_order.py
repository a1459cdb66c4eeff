"""The words of a command line before its flags, where tyro asks for that and a user has not done so.

tyro takes the words of one positional in one place alone (`list mae --size huge full` is refused), and a flag of any
number of values takes the word behind them (`--seeds 0 1 STUDY --status` is refused). Here the same command line is
written with its words first, by how many values each flag of the tool's dataclass takes.
"""

import re
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import tyro

MANY = -1  # values of a flag that takes any number


@dataclass(frozen=True)
class _Shape:
    """What a command line of a dataclass has."""

    values: dict[str, int]
    """Of each flag, with hyphens and without `--`: how many it takes, or MANY."""
    required: int
    """Words that must be there."""


def words_first(cls: Any, argv: Sequence[str]) -> list[str]:
    """Return the command line with its words before its flags; of a union of commands behind the command's name.

    Where a word is missing and one flag alone of any number of values has more than that many, its last ones are taken
    for the words. A command line with `--`, an unknown flag or command, or no such flag alone comes back as it is.
    """
    argv = list(argv)
    if get_origin(cls) in (Union, UnionType):
        chosen = next((each for each in get_args(cls) if argv and _command(each) == argv[0]), None)
        return argv if chosen is None else [argv[0], *words_first(chosen, argv[1:])]
    shape = _shape(_bare(cls))
    places: list[tuple[int, str]] = []
    flags: list[tuple[int, list[str]]] = []
    at = 0
    while at < len(argv):
        text = argv[at]
        if not _is_flag(text):
            places.append((at, text))
            at += 1
            continue
        name, given, _ = text.lstrip("-").replace("_", "-").partition("=")
        if name not in shape.values:
            return argv
        end, most = at + 1, 0 if given else shape.values[name]
        while end < len(argv) and not _is_flag(argv[end]) and (most == MANY or end <= at + most):
            end += 1
        flags.append((at, argv[at:end]))
        at = end
    missing = shape.required - len(places)
    if missing > 0:
        long = [(start, flag) for start, flag in flags if _takes_many(flag, shape) and len(flag) - 1 > missing]
        if len(long) != 1:
            return argv
        ((start, flag),) = long
        places += [(start + len(flag) - missing + i, text) for i, text in enumerate(flag[-missing:])]
        del flag[-missing:]
    return [*(text for _, text in sorted(places)), *(text for _, flag in flags for text in flag)]


def _takes_many(flag: Sequence[str], shape: _Shape) -> bool:
    return shape.values[flag[0].lstrip("-").replace("_", "-").partition("=")[0]] == MANY


def _is_flag(text: str) -> bool:
    """Whether a text is a flag, or the mark `--`; a negative number is none."""
    return bool(re.match(r"--?[A-Za-z]|--$", text))


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _command(hint: Any) -> str:
    """Return what tyro calls a command: the name it was given, or that of its class with hyphens."""
    given = [
        name for extra in getattr(hint, "__metadata__", ()) if isinstance(name := getattr(extra, "name", None), str)
    ]
    return given[0] if given else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", _bare(hint).__name__).lower()


def _shape(cls: Any) -> _Shape:
    values, required = {"help": 0, "h": 0}, 0
    hints = get_type_hints(cls, include_extras=True)
    for f in fields(cls):
        hint = hints[f.name]
        count = _count(_bare(hint))
        if tyro.conf.Positional in getattr(hint, "__metadata__", ()):
            absent = f.default is MISSING and f.default_factory is MISSING
            required += (1 if count == MANY else count) * absent
        elif is_dataclass(_bare(hint)):
            alone = tyro.conf.OmitArgPrefixes in getattr(hint, "__metadata__", ())
            prefix = "" if alone else f"{f.name.replace('_', '-')}."
            values |= {f"{prefix}{name}": count for name, count in _shape(_bare(hint)).values.items()}
        else:
            name = f.name.replace("_", "-")
            values |= {name: count, f"no-{name}": 0} if count == 0 else {name: count}
    return _Shape(values, required)


def _count(hint: Any) -> int:
    """Return how many values a flag of this type takes."""
    if get_origin(hint) in (Union, UnionType):
        kinds = {_count(_bare(each)) for each in get_args(hint) if each is not NoneType}
        return kinds.pop() if len(kinds) == 1 else MANY
    if hint is bool:
        return 0
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        return MANY if Ellipsis in inner else len(inner)
    return 1
