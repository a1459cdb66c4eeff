"""What constraints.txt and setup.cfg ask for, against what an environment has."""

from __future__ import annotations

import configparser
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Installed with --no-deps: their metadata ask for opencv-python and mmengine, which clash with the headless
# build and with onedl-mmengine. setup.cfg names what they need.
HOSTS = ("mmcv-lite", "onedl-mmengine", "onedl-mmsegmentation")

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">=": operator.ge,
}


@dataclass(frozen=True, kw_only=True)
class Platform:
    """The values that the markers in constraints.txt may ask for."""

    python_version: str
    """Major and minor, such as 3.11."""
    sys_platform: str
    """As in `sys.platform`."""
    platform_machine: str
    """As in `platform.machine()`."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One distribution that is missing or of another version than the tested one."""

    name: str
    wanted: str
    found: str | None
    """None when it is not installed."""


def normalise(name: str) -> str:
    """Return the distribution's name as indexes spell it: lower case, runs of - _ . as one dash."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned(constraints: str, platform: Platform) -> dict[str, str]:
    """Return name -> version of the lines that hold on `platform`; raise ValueError for an unreadable one."""
    pins: dict[str, str] = {}
    for number, text in enumerate(constraints.splitlines(), start=1):
        line = text.split("#", 1)[0].strip()
        if not line:
            continue
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        name, equals, version = requirement.partition("==")
        if not equals:
            raise ValueError(f"constraints.txt, line {number}: {line!r} is not NAME==VERSION")
        if all(holds(clause.strip(), platform, number) for clause in marker.split(" and ") if clause):
            pins[normalise(name.strip())] = version.strip()
    return pins


def holds(clause: str, platform: Platform, number: int) -> bool:
    """Return whether one comparison of a marker is true of `platform`."""
    match = re.fullmatch(
        r"""(python_version|sys_platform|platform_machine)\s*(==|!=|<|>=)\s*["']([^"']+)["']""", clause
    )
    if match is None:
        raise ValueError(
            f"constraints.txt, line {number}: marker {clause!r} is none of python_version, sys_platform and "
            "platform_machine compared by ==, !=, < or >="
        )
    variable, comparison, value = match.groups()
    actual = getattr(platform, variable)
    if variable == "python_version":
        return COMPARISONS[comparison](release(actual), release(value))
    return COMPARISONS[comparison](actual, value)


def release(version: str) -> tuple[int, ...]:
    """Return 3.10 as (3, 10), which sorts after 3.9."""
    return tuple(int(part) for part in version.split("."))


def required(setup_cfg: Path) -> list[str]:
    """Return the distributions that setup.cfg names (`dev` too) and the hosts, without detectron2."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(setup_cfg, encoding="utf-8")
    lines = [
        *parser["options"]["install_requires"].splitlines(),
        *parser["options.extras_require"]["dev"].splitlines(),
    ]
    names = [re.split(r"[^A-Za-z0-9._-]", line.strip(), maxsplit=1)[0] for line in lines if line.strip()]
    return [normalise(name) for name in [*names, *HOSTS]]


def compare(pins: Mapping[str, str], needed: list[str], installed: Mapping[str, str]) -> list[Finding]:
    """Return what is missing or differs, by name.

    A pinned distribution that nobody named is looked at only when it is installed: which of torch's
    companions come along depends on its build. A local version is another build of the same release: torch
    2.14.1+cpu is 2.14.1.
    """
    findings = []
    for name in sorted({*needed, *pins}):
        wanted, found = pins.get(name), installed.get(name)
        if found is None and name in needed:
            findings.append(Finding(name=name, wanted=wanted or "any version", found=None))
        elif found is not None and wanted is not None and wanted not in (found, found.partition("+")[0]):
            findings.append(Finding(name=name, wanted=wanted, found=found))
    return findings
