"""What pydantic leaves to the reader of a study: flags by a tool's types, and errors in words with their place."""

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from engine.config import Duration

T = TypeVar("T")
Types = Mapping[str, Any]
MOST_SAID = 30
SHOWN = 100  # characters of a value in a message
ONCE = "once"  # kind of an error whose text needs no value before it
WORDS = {
    "missing": "missing",
    "dict_type": "{value} must be a mapping, `key: value` by line",
    "model_type": "{value} must be a mapping, `key: value` by line",
    "extra_forbidden": "no such key",
    "int_type": "{value} is no whole number",
    "int_parsing": "{value} is no whole number",
    "int_from_float": "{value} is no whole number",
    "float_type": "{value} is no number",
    "float_parsing": "{value} is no number",
    "bool_type": "{value} is neither true nor false",
    "bool_parsing": "{value} is neither true nor false",
    "string_type": "{value} is no text; put it in quotes if it should be one",
    "too_short": "is empty; give one or more",
}


def shown(value: Any) -> str:
    """Return a value as a message shows it."""
    try:
        found = repr(value)
    except ValueError:  # a number of more than 4,300 digits
        return "a number too long to show"
    return found if len(found) <= SHOWN else f"{found[:SHOWN]}... ({len(found):,} characters)"


def wrong(text: str, *place: str | int) -> ValidationError:
    """Return an error to raise in a validator, at a place below what is validated."""
    details = InitErrorDetails(type=PydanticCustomError(ONCE, "{text}", {"text": text}), loc=place, input=None)
    return ValidationError.from_exception_data("study", [details])


class Errors:
    """Errors of several validations, raised as one."""

    def __init__(self) -> None:
        self._found: list[InitErrorDetails] = []

    def say(self, text: str, *place: str | int) -> None:
        """Keep an error."""
        self._keep(wrong(text), place)

    def kept(self, read: Callable[..., Any], *given: Any, at: tuple[str | int, ...] = ()) -> Any:
        """Return what `read` makes of what is given, None where it raises a ValidationError, which is kept."""
        try:
            return read(*given)
        except ValidationError as error:
            self._keep(error, at)
            return None

    def refuse(self) -> None:
        """Raise all that was kept; nothing where nothing was."""
        if self._found:
            raise ValidationError.from_exception_data("study", self._found)

    def _keep(self, error: ValidationError, place: tuple[str | int, ...]) -> None:
        for line in error.errors(include_url=False):
            kind: Any = line["type"]
            if kind == ONCE:
                kind = PydanticCustomError(ONCE, "{text}", line["ctx"])
            self._found.append(
                InitErrorDetails(type=kind, loc=(*place, *line["loc"]), input=line["input"], ctx=line.get("ctx", {}))
            )


def one_of(value: T, options: Collection[Any]) -> T:
    """Return a value that is one of the options. Raises ValidationError that lists them."""
    if value not in options:
        raise wrong(f"{shown(value)} is not there; it is one of {', '.join(map(str, options))}{like(value, options)}")
    return value


def known_recipe(name: str, recipes: Collection[str]) -> str:
    """Return the name of a recipe. Raises ValidationError that lists the recipes."""
    if name not in recipes:
        listed = ", ".join(sorted(recipes))
        raise wrong(f"no recipe is called {shown(name)}; there are: {listed}{like(name, recipes)}")
    return name


def read_options(given: Mapping[Any, Any], types: Types | None, whose: str, keys: Set[str]) -> dict[str, Any]:
    """Return flags as the types of a tool; empty where these are not known, which is said elsewhere.

    `keys` are what may stand beside them. Raises ValidationError that names all that is wrong.
    """
    if types is None:
        return {}
    errors, found = Errors(), {}
    for name, value in given.items():
        if name not in types:
            known = {*types, *keys}
            more = f"{whose} has no such flag, nor has this section such a key; there are: {', '.join(sorted(known))}"
            errors.say(more + like(name, known), str(name))
        else:
            found[name] = errors.kept(_read, value, types[name], at=(str(name),))
    errors.refuse()
    return found


def lines(error: ValidationError, file: str, keys: Callable[[tuple[Any, ...]], Iterable[str]]) -> list[str]:
    """Return an error as lines of a message; `keys` gives the keys that may stand in the section at a place."""
    said = []
    for line in error.errors(include_url=False):
        place = tuple(part for part in line["loc"] if part != "[key]")
        text = _said(line, place, keys)
        at = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
        said.append(f"{file}: {at + ': ' if at else ''}{text}{'' if text[-1] in '.?' else '.'}")
    rest = len(said) - MOST_SAID
    return said[:MOST_SAID] + ([f"{file}: and {rest} more."] if rest > 0 else [])


def _said(line: Any, place: tuple[Any, ...], keys: Callable[[tuple[Any, ...]], Iterable[str]]) -> str:
    value, kind = shown(line["input"]), line["type"]
    if kind == ONCE:
        return str(line["ctx"]["text"])
    if kind == "value_error":
        return f"{value} {line['ctx']['error']}"
    if kind == "literal_error":
        options = [text.strip("'") for text in line["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"{value} is not there; it is one of {', '.join(options)}{like(line['input'], options)}"
    if kind == "extra_forbidden":
        known = sorted(keys(place[:-1]))
        return f"{WORDS[kind]}; there are: {', '.join(known)}{like(place[-1], known)}"
    if kind in WORDS:
        return WORDS[kind].format(value=value)
    return f"{value}: {line['msg'][:1].lower()}{line['msg'][1:]}"


def like(found: Any, options: Iterable[Any]) -> str:
    """Return the end of a sentence that has listed options: a question where one of them was nearly named."""
    near = difflib.get_close_matches(str(found), [str(option) for option in options], n=1)
    return f". Did you mean {near[0]}?" if near else "."


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    config = None if hint in (Duration, Duration | None) else ConfigDict(coerce_numbers_to_str=True)
    return TypeAdapter(hint, config=config)


def _read(value: Any, hint: Any) -> Any:
    """Return a value of the file as the type of a flag; a list of one stands for its value, `None` for none."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    several = any(get_origin(kind) is tuple for kind in kinds)
    if isinstance(value, list) and len(value) == 1 and not several:
        value = value[0]
    if value is None or value == "None":
        if NoneType in kinds:
            return None
        raise wrong(f"{shown(value)} is no value of a flag; leave the key out for the recipe's own")
    if several and not isinstance(value, list):
        value = [value]
    for item in value if isinstance(value, list) else [value]:
        _check_word(item, kinds)
    if Duration in kinds:
        try:
            return Duration.from_text(str(value))
        except ValueError as error:
            raise wrong(str(error).rstrip(".")) from None
    return _adapter(hint).validate_python(value)


def _check_word(value: Any, kinds: Collection[Any]) -> None:
    """Refuse what could not be written on a command line, and a switch where a number or a text is meant."""
    if isinstance(value, bool) and bool not in kinds:
        raise wrong(f"{shown(value)} is no value of this flag; give a number or a text")
    if not isinstance(value, str | int | float):
        raise wrong(f"{shown(value)} is no value of a flag; give a number, a text, true, false or a list")
    if isinstance(value, str) and "\0" in value:
        raise wrong(f"{shown(value)} is no value of a flag; it has a zero byte")
    if isinstance(value, str) and value.startswith("-") and (str in kinds or Path in kinds):
        raise wrong(f"{shown(value)} is no value of a flag; a word that begins with - would be a flag of its own")
