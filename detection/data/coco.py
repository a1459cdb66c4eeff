"""COCO-format data sets: a checked annotation file and its images, for training and for scoring alike.

A large file is read once: its cleaned content is kept in $MAE_TRANSFER_CACHE, or $XDG_CACHE_HOME/mae-transfer, or
~/.cache/mae-transfer, and mapped into memory at the next start. Files below CACHED_FROM bytes are read within a second
or two and leave nothing there.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from detectron2.structures import BoxMode

from detection.data.coco_file import read_file
from detection.data.defects import said, some
from detection.data.store import Category, Store, open_store, stored_source, write_store
from files.digest import file_sha256
from files.naming import cache_folder, files_below, nearest

CACHED_FROM = 16 * 2**20  # bytes of JSON


class Records(Sequence[dict[str, Any]]):
    """detectron2's dataset dicts of some images of a store, each decoded when it is asked for.

    Crowds are among the annotations; `name` is the file name in the annotations. Indexed by an array, the records of
    those images.
    """

    def __init__(self, store: Store, folder: Path, chosen: np.ndarray) -> None:
        self._store, self._folder, self._chosen = store, str(folder), chosen

    def __len__(self) -> int:
        return len(self._chosen)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice | np.ndarray) -> "Records": ...
    def __getitem__(self, index: int | slice | np.ndarray) -> "dict[str, Any] | Records":
        if isinstance(index, slice | np.ndarray):
            return Records(self._store, Path(self._folder), self._chosen[index])
        number = int(self._chosen[index])
        image = self._store.image(number)
        annotations = self._store.annotations(number)
        for annotation in annotations:
            del annotation["id"], annotation["area"]
            annotation["bbox_mode"] = BoxMode.XYWH_ABS
        name, image_id = image.pop("file_name"), image.pop("id")
        path = os.path.join(self._folder, name)
        return {"file_name": path, "name": name, "image_id": image_id, **image, "annotations": annotations}

    def name(self, index: int) -> str:
        """Return the file name in the annotations."""
        name: str = self._store.arrays.name_I[self._chosen[index]].decode("utf-8")
        return name

    @property
    def objects(self) -> np.ndarray:
        """Annotations per image that are no crowds."""
        return self._store.objects_I[self._chosen]

    @property
    def empty(self) -> np.ndarray:
        """Whether an image has no annotation at all, not even a crowd."""
        return np.asarray(np.diff(self._store.arrays.annotation_I) == 0)[self._chosen]

    @property
    def image_classes(self) -> np.ndarray:
        """Pairs (position here, class) of an image and a class that it has, crowds too, each once, (P, 2).

        An image that comes several times is counted at its last position alone.
        """
        arrays = self._store.arrays
        position_I = np.full(len(self._store), -1)
        position_I[self._chosen] = np.arange(len(self))
        position_A = np.repeat(position_I, np.diff(arrays.annotation_I))
        classes = len(self._store.categories)
        # one number for each pair: rows are slow to sort
        pair_P = np.unique((position_A * classes + arrays.class_A)[position_A >= 0])
        return np.stack([pair_P // classes, pair_P % classes], axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoSplit:
    """One checked annotation file and its images."""

    name: str
    annotations: Path
    store: Store
    folder: Path
    """Of the images."""
    notes: tuple[str, ...]
    """What was dropped or clipped."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """By ascending id; a category's index here is its class in the model."""
        return self.store.categories

    @property
    def masks(self) -> bool:
        """Every annotation has a segmentation."""
        return self.store.with_mask > 0

    @property
    def records(self) -> Records:
        """Dataset dicts of all images, by ascending id."""
        return Records(self.store, self.folder, np.arange(len(self.store)))

    @cached_property
    def ground_truth(self) -> dict[str, Any]:
        """The cleaned content in COCO's own form."""
        return ground_truth(self.store)


def ground_truth(store: Store) -> dict[str, Any]:
    """Return a store in COCO's own form, annotations numbered from 1 (its code ignores 0)."""
    images = [store.image(number) for number in range(len(store))]
    annotations = []
    for number, image in enumerate(images):
        for annotation in store.annotations(number):
            category = store.categories[annotation["category_id"]].id
            annotations.append({**annotation, "image_id": image["id"], "category_id": category})
    return {
        "info": {},
        "images": images,
        "categories": [
            {"id": category.id, "name": category.name}
            | ({"frequency": category.frequency} if category.frequency else {})
            for category in store.categories
        ],
        "annotations": annotations,
    }


def annotation_file(data: Path, split: str, explicit: str | None) -> Path:
    """Return the path of a split's annotations. Raises FileNotFoundError that says what is there instead."""
    if not data.is_dir():
        raise FileNotFoundError(f"{data}: no such folder; --data is the folder that holds {split}/ and annotations/.")
    path = Path(explicit) if explicit else data / "annotations" / f"instances_{split}.json"
    if path.is_file():
        return path
    there = sorted(p.name for p in path.parent.glob("*.json")) if path.parent.is_dir() else []
    found = f"{path.parent} holds {some(there)}" if there else f"{path.parent} holds no .json file"
    raise FileNotFoundError(
        f"{path}: no such annotation file; {found}, {data} holds {_listing(data)}. "
        "Name the splits with --train-split and --val-split, or the files with --train-json and --val-json."
    )


def read_coco(path: Path, *, data: Path, split: str) -> CocoSplit:
    """Return the annotations in `path` with images in data/split, or in data or beside the file if not there.

    Raises FileNotFoundError for images that are not there, and ValueError for what is not COCO's format, for
    an unknown category, and for annotations of which only some have a segmentation.
    """
    store, notes = _cached(path) if path.stat().st_size >= CACHED_FROM else (read_file(path), ())
    total = len(store.arrays.area_A)
    if store.with_mask not in (0, total):
        raise ValueError(
            f"{path}: {store.with_mask} of {total} annotations have a segmentation. Give all of "
            "them one to train masks, or remove `segmentation` from all to train boxes alone."
        )
    return CocoSplit(
        name=split,
        annotations=path,
        store=store,
        folder=image_folder(store, path=path, data=data, split=split),
        notes=tuple(f"{split}: {note}" for note in (*map(said, store.defects), *notes)),
    )


def check_same_categories(train: CocoSplit, val: CocoSplit) -> None:
    """Raise ValueError where the two files number or name their categories differently."""
    if train.categories != val.categories:
        only_train = [f"{c.id} {c.name}" for c in train.categories if c not in val.categories]
        only_val = [f"{c.id} {c.name}" for c in val.categories if c not in train.categories]
        raise ValueError(
            f"the categories of {val.annotations} differ from those of {train.annotations}: "
            f"only in training {some(only_train) or 'none'}; only in validation {some(only_val) or 'none'}. "
            "Both files must list the same ids and names."
        )


def images_of_both(train: CocoSplit, val: CocoSplit) -> tuple[str, ...]:
    """Return a note of the validation images that are trained on too, by their paths, or nothing."""
    taken = set(_places(train))
    both = [name for name, place in zip(_names(val), _places(val), strict=True) if place in taken]
    return (f"images that are trained on too: {len(both)} of {len(val.store)} ({some(both)})",) if both else ()


def _names(split: CocoSplit) -> list[str]:
    return [name.decode("utf-8") for name in split.store.arrays.name_I.tolist()]


def _places(split: CocoSplit) -> list[str]:
    """Return what is equal for images of one path; links to folders are followed."""
    real: dict[str, str] = {}
    places = []
    for name in _names(split):
        parent, _, last = name.rpartition("/")
        if parent not in real:
            real[parent] = os.path.realpath(split.folder / parent)
        places.append(f"{real[parent]}/{last}")
    return places


def with_note(split: CocoSplit, note: str) -> CocoSplit:
    """Return the split with one more thing said of it."""
    return replace(split, notes=(*split.notes, note))


def image_folder(store: Store, *, path: Path, data: Path, split: str) -> Path:
    """Return the first folder that has the first image; raises FileNotFoundError where images are missing."""
    names = [name.decode("utf-8") for name in store.arrays.name_I.tolist()]
    candidates = [data / split, data, path.parent]
    folder = next((c for c in candidates if _within(c, names[0]) and os.path.isfile(c / names[0])), data / split)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder}: no such folder; looked for {names[0]}, the first image of {path.name}, in "
            f"{', '.join(str(c) for c in candidates)}; {data} holds {_listing(data)}."
        )
    for image_id, name in zip(store.image_ids, names, strict=True):
        if not _within(folder, name):
            raise ValueError(
                f"{path}: image {str(image_id)[:100]} has file_name {name[:200]!r}, which is not a path "
                f"inside {folder}; "
                "names must stay below the folder (links may lead elsewhere)."
            )
    # one listing per folder: asking for 118,287 files one by one takes seconds
    places = [name.rpartition("/") for name in names]
    listed = {parent: _files(folder / parent) for parent in {parent for parent, _, _ in places}}
    missing = [name for name, (parent, _, last) in zip(names, places, strict=True) if last not in listed[parent]]
    if missing:
        raise FileNotFoundError(
            f"{path}: names {len(missing)} of {len(names)} images that are not in {folder}: {some(missing)}"
            f"{nearest(missing, files_below(folder))}."
        )
    return folder


def _cached(path: Path) -> tuple[Store, tuple[str, ...]]:
    """Return the content of a large file from the cache, or read and kept there, and what is to be said of that."""
    kept = cache_folder() / f"annotations-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:24]}.bin"
    state = path.stat()
    source = {"path": str(path.resolve()), "bytes": state.st_size, "modified_ns": state.st_mtime_ns}
    notes: tuple[str, ...] = ()
    if kept.is_file():
        try:
            stored = stored_source(kept)
            digest = stored.pop("sha256")
            if stored == source:
                return open_store(kept), ()
            if stored["bytes"] == source["bytes"] and digest == file_sha256(path):  # touched or copied again
                store = open_store(kept)
                write_store(kept, store, source={**source, "sha256": digest})
                return store, ()
            notes = (f"annotations changed since they were cached; read again ({kept})",)
        except (ValueError, KeyError, TypeError, OSError) as error:
            notes = (f"cache not usable, read again: {error}",)
    store = read_file(path)
    try:
        write_store(kept, store, source={**source, "sha256": file_sha256(path)})
        return open_store(kept), notes
    except (OSError, ValueError) as error:
        return store, (*notes, f"annotations not cached, so that every start reads them again: {error}")


def _within(folder: Path, name: str) -> bool:
    """Whether a name stays below a folder by its letters; links are data's own affair."""
    if not name.startswith("/") and ".." not in name:  # nearly all
        return True
    path = os.path.normpath(os.path.join(os.path.abspath(folder), name))
    return ".." not in name.split("/") and path.startswith(os.path.join(os.path.abspath(folder), ""))


def _files(folder: Path) -> set[str]:
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}


def _listing(folder: Path) -> str:
    names = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    return some(names) if names else "nothing"
