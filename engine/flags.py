"""A command line from a configuration: every field of a recipe's configuration is a flag, with the recipe's value.

A flag is called as its field. Where several parts of a configuration have a field of one name, those of the parts are
called PART-FIELD (`--optim-kind`, `--schedule-kind`). tyro parses and prints; this module takes a nest of dataclasses
apart and puts it together again.
"""

import ast
import difflib
import inspect
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence, Set
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from engine.config import BASIC, CODE, COMPUTED, FILE, WITHOUT, Duration
from engine.streams import prepare_streams

A = TypeVar("A")
Recipes = Mapping[str, Callable[[], Any]]
HELP, HELP_ALL = ("-h", "--help"), "--help-all"


@dataclass(frozen=True)
class Leaf:
    """A field of a configuration, at any depth, as a flag."""

    path: tuple[str, ...]
    """Names of the fields that lead to it."""
    type: Any
    default: Any
    owner: type[Any]
    """Class of the field."""
    marks: frozenset[str]
    name: str = ""
    """Of the flag, with underscores."""
    part: type[Any] | None = None
    """Of an optional part with a single field: the field's value stands for the part, None for its absence."""

    @property
    def doc(self) -> str:
        """Docstring of the field; reading it takes time."""
        return field_docs(self.owner).get(self.path[-1], "")

    @property
    def is_file(self) -> bool:
        """Whether it names a file or folder."""
        return FILE in self.marks

    @property
    def is_code(self) -> bool:
        """Whether it names a function that is run."""
        return CODE in self.marks

    def value(self, given: Any) -> Any:
        """Return what a configuration holds for a value of the flag."""
        if self.part is None or given is None:
            return given
        return self.part(**{fields(self.part)[0].name: given})


def leaves(config: Any) -> tuple[Leaf, ...]:
    """Return the flags of a configuration, in the order of its fields."""
    found = tuple(_leaves(config, ()))
    twice = {name for name, count in Counter(leaf.path[-1] for leaf in found).items() if count > 1}
    named = (
        replace(leaf, name="_".join(leaf.path[-2:] if leaf.path[-1] in twice else leaf.path[-1:])) for leaf in found
    )
    return tuple(named)


def parse_with_config(
    cls: type[A], recipes: Recipes, argv: Sequence[str] | None, *, doc: str | None, noun: str = "recipe"
) -> tuple[A, Any]:
    """Return the flags of a tool, a dataclass whose positional names a recipe, and the recipe's configuration.

    The configuration has the values that were given in the place of the recipe's. --help shows the flags that a run
    usually needs, --help-all shows all, with the recipe's values where a recipe is named.

    Raises ValueError for a recipe that is not known, a flag that is another recipe's, and values that make no
    configuration.
    """
    prepare_streams()
    argv = list(sys.argv[1:] if argv is None else argv)
    every = HELP_ALL in argv
    argv = ["--help" if text == HELP_ALL else text for text in argv]
    asked = any(text in HELP for text in argv)
    argv = _name_first(argv, recipes)
    name = _named(argv, recipes, noun)
    lines = [f"  {key}: {(recipe.__doc__ or '-').splitlines()[0]}" for key, recipe in recipes.items()]
    if name is None:  # help alone, or an error that tyro explains
        more = f"\n\nRECIPE --help shows the flags of a {noun} and its values.\n\n{noun.capitalize()}s:\n"
        tyro.cli(cls, args=argv, description=f"{(doc or '').strip()}{more}" + "\n".join(lines))
        raise ValueError(f"name a {noun} first; there are: {', '.join(recipes)}.")
    config = recipes[name]()
    flags = leaves(config)
    own = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    known = own | {leaf.name for leaf in flags} | {"help"}
    given = _given(argv, known)
    strange = sorted(given - known)
    _check_strange(strange, recipes, name, noun)
    if asked and not every:
        shown = [leaf for leaf in flags if BASIC in leaf.marks]
    else:  # most of the time of parsing goes to flags that are not there
        shown = [leaf for leaf in flags if asked or strange or leaf.name in given]
    about = f"{(doc or '').strip()}\n\n{name}: {(recipes[name].__doc__ or '-').strip()}"
    if len(shown) < len(flags):
        about += f"\n\n{len(flags) - len(shown)} more flags: {Path(sys.argv[0]).name} {name} {HELP_ALL}"
    made = _joined(cls, shown)
    # the recipe is of the command's name, since tyro leaves what was given out of its usage line
    parsed = tyro.cli(made, args=argv, description=about, prog=f"{sys.argv[0]} {name}")
    values = {leaf.path: leaf.value(getattr(parsed, leaf.name)) for leaf in shown}
    return cls(**{flag: getattr(parsed, flag) for flag in own}), rebuilt(config, values)


def rebuilt(config: Any, given: Mapping[tuple[str, ...], Any]) -> Any:
    """Return the configuration with the values of these fields; raises what its parts say of them."""
    changed: dict[str, Any] = {}
    for f in fields(config):
        below = {path[1:]: value for path, value in given.items() if path[0] == f.name and len(path) > 1}
        now = getattr(config, f.name)
        new = given[f.name,] if (f.name,) in given else rebuilt(now, below) if below else now
        if new != now:
            changed[f.name] = new
    return replace(config, **changed) if changed else config


def positional(cls: Any) -> str:
    """Return the field of a tool's flags that stands without a name: its recipe."""
    return next(name for name, hint in _hints(cls).items() if tyro.conf.Positional in getattr(hint, "__metadata__", ()))


def command_line(args: Any, config: Any = None, recipe: Any = None) -> list[str]:
    """Return the words that `parse_with_config` makes these flags and this configuration of.

    `config` is the configuration of the recipe, `recipe`, with what departs from it; both are None for a tool without.
    """
    kind: Any = type(args)
    hints = _hints(kind)
    places, needed, more = [], [], []
    for f in fields(args):
        value = getattr(args, f.name)
        if tyro.conf.Positional in getattr(hints[f.name], "__metadata__", ()):
            places.append(str(value))
        elif f.default is MISSING and f.default_factory is MISSING:
            needed += words(f.name, value)
        elif value != f.default:
            more += words(f.name, value)
    if config is not None:
        plain = {leaf.path: leaf.default for leaf in leaves(recipe)}
        for leaf in leaves(config):
            if leaf.default != plain[leaf.path]:
                more += words(leaf.name, leaf.default)
    return [*places, *needed, *more]


def words(name: str, value: Any) -> list[str]:
    """Return a flag, of a name with underscores, and its value as a command line has them."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return [flag if value else flag.replace("--", "--no-", 1)]
    if isinstance(value, Duration | NoneType):
        return [flag, duration_text(value)]
    values = value if isinstance(value, tuple) else (value,)
    return [flag, *(repr(item) if isinstance(item, float) else str(item) for item in values)]


def _leaves(config: Any, path: tuple[str, ...]) -> Any:
    kind: Any = type(config)
    hints = _hints(kind)
    for f in fields(config):
        hint, marks = hints[f.name], frozenset[str]()
        if get_origin(hint) is Annotated:
            hint, *extras = get_args(hint)
            marks = frozenset(extra for extra in extras if isinstance(extra, str))
        if COMPUTED in marks:
            continue
        now = getattr(config, f.name)
        part = next((each for each in _kinds(hint) if is_dataclass(each) and each is not Duration), None)
        here = (*path, f.name)
        if part is None:
            yield Leaf(here, hint, now, kind, marks)
        elif part is not hint and len(fields(part)) == 1:
            (only,) = fields(part)
            value = None if now is None else getattr(now, only.name)
            yield Leaf(here, get_type_hints(part)[only.name] | None, value, kind, marks, part=part)
        elif now is not None:
            left_out = {name for extra in marks if extra.startswith(WITHOUT) for name in extra.split()[1:]}
            yield from (leaf for leaf in _leaves(now, here) if leaf.path[len(here)] not in left_out)


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _joined(cls: Any, flags: Sequence[Leaf]) -> type[Any]:
    """Return a dataclass of the tool's own flags and of a configuration's."""
    hints, docs = _hints(cls), field_docs(cls)
    own: list[Any] = []
    for f in fields(cls):
        hint = hints[f.name]
        own.append((f.name, Annotated[hint, tyro.conf.arg(help=docs[f.name])] if f.name in docs else hint, _same(f)))
    more = [(leaf.name, _typed(leaf), field(default=leaf.default)) for leaf in flags]
    return make_dataclass("options", [*own, *more], kw_only=True)


def _same(f: Any) -> Any:
    return field(default=f.default, default_factory=f.default_factory)


def _typed(leaf: Leaf) -> Any:
    shown = tyro.conf.arg(help=leaf.doc, metavar="FILE" if leaf.is_file else None)
    if Duration in _kinds(leaf.type):
        return Annotated[leaf.type, _DURATION, shown]
    return Annotated[leaf.type, shown]


def duration_text(value: Duration | None) -> str:
    """Return what `Duration.from_text` reads as this length."""
    if value is None:
        return "None"
    short = f"{value.value:g}"
    return f"{short if float(short) == value.value else repr(value.value)}{value.unit}"


_DURATION = PrimitiveConstructorSpec(
    nargs=1,
    metavar="{N|Nsteps|Nepochs|Nsamples|None}",
    instance_from_str=lambda texts: Duration.from_text(texts[0]),
    is_instance=lambda value: isinstance(value, Duration | NoneType),
    str_from_instance=lambda value: [duration_text(value)],
)


def _named(argv: Sequence[str], recipes: Recipes, noun: str) -> str | None:
    """Return the recipe that a command line names: its first word."""
    if argv and not argv[0].startswith("-"):
        if argv[0] not in recipes:
            near = difflib.get_close_matches(argv[0], recipes, n=3)
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(f"no {noun} is called {argv[0]!r}; there are: {', '.join(sorted(recipes))}.{meant}")
        return argv[0]
    return None


def _name_first(argv: Sequence[str], recipes: Recipes) -> list[str]:
    """Return the command line with the only word that is a recipe's name in front, where its first word is none.

    A flag of any number of values would else take the name behind it.
    """
    found = [
        at
        for at, (before, text) in enumerate(zip(["", *argv], argv, strict=False))
        if text in recipes and not before.startswith("--arm")
    ]
    if not argv or not argv[0].startswith("-") or len(found) != 1:
        return [*argv]
    (at,) = found
    return [argv[at], *argv[:at], *argv[at + 1 :]]


def _given(argv: Sequence[str], known: Set[str]) -> set[str]:
    """Return the names of the flags on a command line, with underscores, of known ones without the `no` of a switch."""
    named = {text.partition("=")[0][2:].replace("-", "_") for text in argv if text.startswith("--")}
    off = {f"no_{name}": name for name in known}
    return {off.get(word, word) for word in named}


def _check_strange(strange: Sequence[str], recipes: Recipes, name: str, noun: str) -> None:
    """Raise ValueError for flags that this recipe has not, and others of the tool have."""
    others = {leaf.name for recipe in recipes.values() for leaf in leaves(recipe())} if strange else set()
    wrong = [flag for flag in strange if flag in others or flag.removeprefix("no_") in others]
    if wrong:
        listed = ", ".join(f"--{flag.replace('_', '-')}" for flag in wrong)
        raise ValueError(f"{noun} {name!r} has no use for {listed}; another {noun} of this tool takes it.")


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


@cache
def field_docs(cls: Hashable) -> dict[str, str]:
    """Return the docstring below each field of a dataclass and of its bases, on one line."""
    assert isinstance(cls, type)
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not is_dataclass(base):
            continue
        (body,) = (node.body for node in ast.parse(textwrap.dedent(inspect.getsource(base))).body)  # type: ignore[attr-defined]
        for one, after in pairwise(body):
            match one, after:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = " ".join(text.split())
    return docs
