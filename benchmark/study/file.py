"""A study file (YAML) to a Study and back; what is wrong with it is said with its place and the way out."""

from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from benchmark.study.calling import Tools
from benchmark.study.options import Errors, lines, shown
from benchmark.study.sections import Part
from benchmark.study.spec import Study
from engine.config import Duration
from engine.flags import duration_text
from files.parsing import parse_yaml

LABELS = {"arms": "label", "tasks": "name", "protocols": "name", "scenes": "name", "tokenizers": "name"}  # by names


def read_study(file: Path, tools: Tools) -> Study:
    """Return the study in a file. Raises FileNotFoundError, or ValueError that names file, field, value and way out."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such study file.")
    return parse_study(file.read_bytes(), file.name, tools)


def parse_study(content: bytes | str, file: str, tools: Tools) -> Study:
    """Return the study in a text; flags in it are read as the types of `tools`.

    Raises ValueError that names `file`, and field, value and way out of everything that is wrong, a line each.
    """
    values = parse_yaml(content, file)
    if not isinstance(values, dict):
        raise ValueError(f"{file}: the file is {shown(values)}; it must be a mapping, `key: value` by line.")
    errors = Errors()
    values = _with_text_keys(values, (), errors)
    study: Study | None = errors.kept(partial(Study.model_validate, context=tools), values)
    try:
        errors.refuse()
    except ValidationError as error:
        raise ValueError("\n".join(lines(error, file, _keys_at))) from None
    assert study is not None
    return study


def study_text(study: Study) -> str:
    """Return the file that `parse_study` reads the study from."""
    return dumped(_plain(study))


def dumped(values: Any) -> str:
    """Return values as the copy of a study in its folder is written."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)


def _with_text_keys(values: Any, place: tuple[str | int, ...], errors: Errors) -> Any:
    """Return values without the keys that are no text, which are said."""
    if isinstance(values, list):
        return [_with_text_keys(value, (*place, number), errors) for number, value in enumerate(values)]
    if not isinstance(values, dict):
        return values
    for key in values:
        if not isinstance(key, str):
            errors.say(f"the key {shown(key)} is read as no text; put it in quotes", *place)
    return {key: _with_text_keys(value, (*place, key), errors) for key, value in values.items() if isinstance(key, str)}


def _keys_at(place: tuple[Any, ...]) -> list[str]:
    """Return the keys of a section without flags, by its place."""
    cls: Any = Study
    for part in place:
        if part in cls.model_fields:
            cls = next((kind for kind in _kinds(cls.model_fields[part].annotation) if _is_part(kind)), cls)
    return sorted(cls.keys())


def _kinds(hint: Any) -> list[Any]:
    inner = getattr(hint, "__args__", ())
    return [hint, *(kind for each in inner for kind in _kinds(each))]


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Part)


def _plain(value: Any) -> Any:
    """Return a part of a study as YAML takes it."""
    if isinstance(value, BaseModel):
        found: dict[str, Any] = {}
        for name, field in type(value).model_fields.items():
            now = getattr(value, name)
            if field.exclude or now is None or now == () or now == {}:
                continue
            label = LABELS.get(name) if isinstance(now, tuple) else None
            found[name] = {getattr(item, label): _plain(item) for item in now} if label else _plain(now)
        return found | {name: _plain(option) for name, option in getattr(value, "options", {}).items()}
    if isinstance(value, Duration):
        return duration_text(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
