"""A function of the user's, named `FILE.py:NAME` or `package.module:NAME`: where its source is, and the function.

What a record says of it is `module:NAME sha256:DIGEST`, the digest being that of the file that defines it. What this
file imports in turn is not in the digest.
"""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from files.digest import file_sha256

Function = Callable[..., Any]


def split_name(text: str) -> tuple[str, str]:
    """Return the file or module and the name of the function. Raises ValueError for a text that names none."""
    place, _, name = text.rpartition(":")
    if not place or not name.isidentifier():
        raise ValueError(f"{text!r} names no function; write FILE.py:FUNCTION or package.module:FUNCTION.")
    return place, name


def file_of(text: str) -> Path | None:
    """Return the file that a text names; None for a module, which Python finds."""
    place, _ = split_name(text)
    return Path(place) if place.endswith(".py") else None


def source_of(text: str) -> str:
    """Return `module:NAME sha256:DIGEST` of a function; its file is read and not run.

    Raises FileNotFoundError or ValueError for a file or module that is not there.
    """
    place, name = split_name(text)
    path = _path(text)
    return f"{path.stem if file_of(text) else place}:{name} sha256:{file_sha256(path)}"


def load(text: str, source: str, arguments: int) -> Function:
    """Return the function, which runs its file once in a process.

    `source` is what `source_of` said of it; `arguments` are the positional ones that it must take.

    Raises FileNotFoundError or ValueError where it is not there, is another now, cannot be imported or takes other
    arguments.
    """
    found = source_of(text)
    if found != source:
        raise ValueError(f"{text}: its source has changed since the run began: {source} -> {found}.")
    function = _loaded(text, found)
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError as error:
        raise ValueError(
            f"{text}: takes {inspect.signature(function)}, and is called with {arguments} arguments ({error})."
        ) from error
    return function


@cache
def _loaded(text: str, source: str) -> Function:
    place, name = split_name(text)
    path = _path(text)
    try:
        module = importlib.import_module(place) if file_of(text) is None else _of_file(path, source)
    except Exception as error:  # whatever the user's file raises
        raise ValueError(f"{text}: {path} cannot be imported: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise ValueError(f"{text}: {path} has no {name}; its functions are: {', '.join(sorted(there)) or 'none'}.")
    function = getattr(module, name)
    if not callable(function):
        raise ValueError(f"{text}: is a {type(function).__name__}, which cannot be called; name a function.")
    inner = inspect.unwrap(function)
    if inspect.isfunction(inner) and Path(inner.__code__.co_filename).resolve() != path.resolve():
        raise ValueError(
            f"{text}: is defined in {inner.__code__.co_filename}, not in {path}, whose digest a record would state; "
            "name it where it is defined."
        )
    made: Function = function
    return made


def _of_file(path: Path, source: str) -> ModuleType:
    name = f"_function_of_{source.rpartition(':')[2]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # of a file whose name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses in it look for their module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _path(text: str) -> Path:
    """Return the file of the source. Raises FileNotFoundError or ValueError where there is none."""
    place, _ = split_name(text)
    path = file_of(text)
    if path is not None:
        if not path.is_file():
            raise FileNotFoundError(f"{text}: {path.absolute()} is no file.")
        return path
    try:
        spec: ModuleSpec | None = importlib.util.find_spec(place)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise ValueError(
            f"{text}: Python finds no module {place}; install it or name its folder in PYTHONPATH, or give its file, "
            "FILE.py:FUNCTION."
        )
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ValueError(f"{text}: {place} has no Python source, so that a record could not say which one it was.")
    return Path(spec.origin)
