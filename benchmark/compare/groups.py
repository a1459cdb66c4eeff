"""Groups of test images that belong together, as frames of one video: groups are drawn, not images, where named."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmark.study.plan import Groups
from files.naming import inside
from files.parsing import read_text

LARGEST_FILE = 64 * 2**20  # bytes


@dataclass(frozen=True)
class Grouping:
    """Where the groups of a task's test images stand."""

    groups: Groups
    root: Path
    """Folder of the plan that names them."""
    source: Path
    """The plan."""

    def number(self, names: Sequence[str]) -> list[int]:
        """Return the number of each image's group, from 0.

        Raises ValueError for an image that belongs to none, OSError for a file that is not there.
        """
        found = self._by_pattern(names) if self.groups.pattern is not None else self._by_file(names)
        numbers = {group: number for number, group in enumerate(dict.fromkeys(found))}
        return [numbers[group] for group in found]

    def _by_pattern(self, names: Sequence[str]) -> list[str]:
        assert self.groups.pattern is not None
        pattern = re.compile(self.groups.pattern)
        found = []
        for name in names:
            match = pattern.search(name)
            if match is None or match[1] is None:
                raise ValueError(f"{self.source}: groups: {pattern.pattern!r} finds no group in the image {name!r}")
            found.append(match[1])
        return found

    def _by_file(self, names: Sequence[str]) -> list[str]:
        assert self.groups.file is not None
        path = inside(self.root, self.groups.file, source=self.source)
        of_name = read_groups(path)
        if missing := [name for name in names if name not in of_name]:
            raise ValueError(f"{path}: no group for {len(missing)} of {len(names)} images, as {missing[0]!r}")
        return [of_name[name] for name in names]


def read_groups(path: Path) -> dict[str, str]:
    """Return image -> group of a file of `name,group` lines. Raises ValueError that names the file and the line."""
    if path.stat().st_size > LARGEST_FILE:
        raise ValueError(f"{path}: more than {LARGEST_FILE:,} bytes; give a line name,group for each test image")
    found: dict[str, str] = {}
    try:
        for number, row in enumerate(csv.reader(read_text(path).splitlines(), strict=True), start=1):
            if not row:
                continue
            if len(row) != 2 or not all(row):
                raise ValueError(f"line {number} is no name,group")
            if found.setdefault(row[0], row[1]) != row[1]:
                raise ValueError(f"line {number}: {row[0]!r} is in a second group")
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path}: {error}") from error
    return found
