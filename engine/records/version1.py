"""What records, configurations, plans and choices of before called things: the one table from their words to ours.

Files of version 1 say so (a record) or say no version (`config.json`, `study.json`, `choice.json`). They are read as if
they had been written today.
"""

from collections.abc import Mapping
from typing import Any

VERSION = 1
# of a task's configuration: notes of the command line, which say nothing of the run; of version 2 too
LEFT_OUT = frozenset({"trust_tokenizer_pickle"})
# of a task's configuration, at its top
CONFIG_FIELDS = {"crop_share": "crop_pct", "label_share": "label_fraction", "taps": "out_indices"}
CONFIG_VALUES = {"pyramid": {"simple": "sfp", "four_tap": "fpn"}, "loss_on": {"hidden": "masked"}}
PLAN_VALUES = {"match": {"passes": "samples"}}
CHOICE_FIELDS = {"rate": "base_lr"}


def without_left_out(config: Any) -> Any:
    """Return a recorded configuration without the fields that configurations have no more; as it is where it is no
    object."""
    return {n: v for n, v in config.items() if n not in LEFT_OUT} if isinstance(config, dict) else config


def config_of_today(config: Any) -> Any:
    """Return a recorded configuration in today's words; as it is where it is no object."""
    return _renamed(config, CONFIG_FIELDS, CONFIG_VALUES)


def record_of_today(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a record of version 1 in today's words, its `schema_version` left to today's."""
    found = {name: value for name, value in values.items() if name != "schema_version"}
    if "config" in found:
        found["config"] = config_of_today(found["config"])
    if isinstance(found.get("departures"), list):
        found["departures"] = [_departure(line) for line in found["departures"]]
    return found


def plan_of_today(values: Any) -> Any:
    """Return the content of a `study.json` in today's words."""
    return _renamed(values, {}, PLAN_VALUES)


def choice_of_today(values: Any) -> Any:
    """Return the content of a `choice.json` in today's words."""
    found = _renamed(values, CHOICE_FIELDS, {})
    if isinstance(found, dict) and isinstance(found.get("tried"), list):
        found["tried"] = [_renamed(item, CHOICE_FIELDS, {}) for item in found["tried"]]
    return found


def _renamed(values: Any, fields: Mapping[str, str], words: Mapping[str, Mapping[str, str]]) -> Any:
    """Return an object with its fields and their values renamed; a field that is there under its new name stays."""
    if not isinstance(values, dict):
        return values
    found = {}
    for name, value in values.items():
        new = fields[name] if name in fields and fields[name] not in values else name
        found[new] = words[new].get(value, value) if new in words and isinstance(value, str) else value
    return found


def _departure(line: Any) -> Any:
    """Return a line `field: before -> after` in today's words; any other as it is."""
    if not isinstance(line, str):
        return line
    field, colon, values = line.partition(": ")
    before, arrow, after = values.partition(" -> ")
    if not colon or not arrow:
        return line
    words = CONFIG_VALUES.get(field, {})
    return f"{CONFIG_FIELDS.get(field, field)}: {words.get(before, before)} -> {words.get(after, after)}"
