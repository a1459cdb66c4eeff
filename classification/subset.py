"""A part of the training labels: a fraction of every class from a seed, or the images that a list names.

The fraction of a class are the images whose names have the lowest hashes, so it depends on no order of files and no
library's generator, and 1 % is a part of 10 %.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePath

from engine.subset import part_size, rank
from files.naming import nearest
from files.parsing import read_text

Labelled = tuple[str, int]  # path, label


def fraction_of_classes(samples: Sequence[Labelled], root: Path, *, fraction: float, seed: int) -> list[Labelled]:
    """Return `fraction` of the images of every class, rounded up, in the given order."""
    by_class: dict[int, list[Labelled]] = defaultdict(list)
    for sample in samples:
        by_class[sample[1]].append(sample)
    kept: set[str] = set()
    for members in by_class.values():
        ranked = sorted(members, key=lambda sample: rank(relative(sample[0], root), seed))
        kept |= {path for path, _ in ranked[: part_size(fraction, len(members))]}
    return [sample for sample in samples if sample[0] in kept]


def listed_images(samples: Sequence[Labelled], root: Path, list_file: Path) -> list[Labelled]:
    """Return the images that a file names, one a line, by name or by path below `root`, in the given order.

    Raises FileNotFoundError, or ValueError that names the lines which name no image, several, or one again.
    """
    # split at line ends alone: a name may hold what str.splitlines takes for one
    lines = re.split(r"\r\n|\r|\n", read_text(list_file))
    wanted = [line.strip() for line in lines if line.strip()]
    by_name: dict[str, list[str]] = defaultdict(list)
    for path, _ in samples:
        by_name[relative(path, root)].append(path)
        if "/" in relative(path, root):
            by_name[PurePath(path).name].append(path)
    for what, bad in (
        ("name no image", [name for name in wanted if not by_name.get(name)]),
        ("fit several images (write class/name)", [name for name in wanted if len(by_name.get(name, ())) > 1]),
        ("come twice", [name for name, count in Counter(wanted).items() if count > 1]),
    ):
        if bad:
            meant = nearest(bad, (relative(path, root) for path, _ in samples)) if what == "name no image" else ""
            raise ValueError(
                f"{list_file}: {len(bad)} of {len(wanted)} lines {what} of {root}: {', '.join(bad[:3])}{meant}."
            )
    if not wanted:
        raise ValueError(f"{list_file}: names no image.")
    kept = {by_name[name][0] for name in wanted}
    return [sample for sample in samples if sample[0] in kept]


def relative(path: str, root: Path) -> str:
    """Return the path of an image below its split's folder, with forward slashes."""
    return PurePath(path).relative_to(root).as_posix()


def list_text(samples: Sequence[Labelled], root: Path) -> str:
    """Return what `listed_images` reads: one path a line."""
    return "".join(f"{relative(path, root)}\n" for path, _ in samples)
