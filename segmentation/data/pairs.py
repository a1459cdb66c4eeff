"""Which image goes with which label map, by the names of the files."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.images.arrays import ENDINGS, RGB
from engine.images.reading import EXTENSIONS, endings_of, other_kind
from files.naming import files_below, nearest, system_part

LABEL_EXTENSIONS = (".png", ".tif", ".tiff", ".bmp")  # none of which changes a number, as JPEG does


@dataclass(frozen=True)
class Pair:
    """One image and its label map."""

    image_id: str
    """Path of the image below the split's folder."""
    image: Path
    labels: Path


def check_folders(root: Path, folders: Sequence[str], layout: str) -> None:
    """Raise FileNotFoundError that says what was looked for and what is there, where a folder is missing."""
    if not all((root / folder).is_dir() for folder in folders):
        raise FileNotFoundError(
            f"{root}: looked for {' and '.join(folders)} ({layout} layout); found {_listing(root, folders)}. --data "
            f"names the folder that holds {folders[0].partition('/')[0]}/; another layout is declared by --layout."
        )


def pair_folders(
    images: Path, labels: Path, suffixes: Sequence[tuple[str, str]] = (("", ""),), *, channels: int = RGB
) -> list[Pair]:
    """Return the images below a folder with the label maps of the same name below another, sorted by name.

    Of the pairs of suffixes behind the common name (of an image, of a label map) the first that any label map has
    is used. Raises FileNotFoundError where there are no images, ValueError for images without label map and label
    maps without image.
    """
    endings = endings_of(channels)
    found = by_stem(images, endings)
    if not found:
        others = other_kind(images.rglob("*"), channels)
        raise FileNotFoundError(f"{images}: holds no image file ({', '.join(endings)}).{others}")
    wanted = {stem.removesuffix(of_image) + of_label for stem in found for of_image, of_label in suffixes}
    maps = label_maps(labels, wanted)
    used = (pair for pair in suffixes if any(stem.endswith(pair[1]) for stem in maps))
    image_suffix, label_suffix = next(used, suffixes[0])
    named = {stem.removesuffix(label_suffix): path for stem, path in maps.items() if stem.endswith(label_suffix)}
    pictured = {stem.removesuffix(image_suffix): path for stem, path in found.items()}
    check_partners(pictured, named, f"{images}/x{image_suffix}.*", f"{labels}/x{label_suffix}.*")
    return [Pair(pictured[stem].relative_to(images).as_posix(), pictured[stem], named[stem]) for stem in sorted(named)]


def label_maps(folder: Path, wanted: Collection[str]) -> dict[str, Path]:
    """Return the label maps below a folder by their path without extension.

    Those are the .png files; other lossless files are taken where there is no .png at all, or none for a stem `wanted`.
    """
    pngs = by_stem(folder, LABEL_EXTENSIONS[:1])
    missing = [stem for stem in wanted if stem not in pngs]
    others = by_stem(folder, LABEL_EXTENSIONS[1:]) if missing else {}
    return pngs | {stem: others[stem] for stem in missing if stem in others} if pngs else others


def system_images(folder: Path) -> list[str]:
    """Return the images and label maps below a folder that are hidden or the system's, by their paths."""
    return sorted(
        name for name in files_below(folder) if name.lower().endswith((*EXTENSIONS, *ENDINGS)) and system_part(name)
    )


def check_partners(images: Mapping[str, Path], labels: Mapping[str, Path], image: str, label: str) -> None:
    """Raise ValueError for images without label map and label maps without image, by their common name."""
    alone, orphans = missing_partners(images, labels)
    if alone or orphans:
        raise ValueError(
            f"{len(alone)} of {len(images)} images have no label map ({some(alone)}) and {len(orphans)} of "
            f"{len(labels)} label maps have no image ({some(orphans)}){nearest(alone, orphans)}; {image} goes with "
            f"{label} ({', '.join(LABEL_EXTENSIONS)}). Add or remove the files named."
        )


def missing_partners(images: Mapping[str, Path], labels: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Return the names that only images have, and those that only label maps have."""
    return sorted(images.keys() - labels.keys()), sorted(labels.keys() - images.keys())


def some(names: Sequence[str], most: int = 5) -> str:
    """Return the first few names and how many more there are."""
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest if names else "none"


def by_stem(folder: Path, extensions: tuple[str, ...]) -> dict[str, Path]:
    """Return the files below a folder by their path without extension, without those of `system_images`.

    Raises ValueError where two would share one.
    """
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in extensions):
        below = path.relative_to(folder)
        if system_part(below.as_posix()) is not None:
            continue
        stem = below.with_suffix("").as_posix()
        if stem in found:
            raise ValueError(f"{folder}: {found[stem].name} and {path.name} would share one label map; rename one.")
        found[stem] = path
    return found


def _listing(root: Path, folders: Sequence[str]) -> str:
    if not root.is_dir():
        return "no such folder"
    first = root / folders[0].partition("/")[0]
    inside = first if first.is_dir() else root
    names = sorted(f"{p.name}/" if p.is_dir() else p.name for p in inside.iterdir())
    return f"{some(names)} in {inside}" if names else f"{inside} empty"
