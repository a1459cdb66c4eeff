"""Predictions of a trained model on images that have no labels: what `tools/predict.py` asks of a task, and how it
runs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from engine.images.arrays import RGB
from engine.images.reading import UnreadableImageError, evenly_spaced, find_images
from engine.runs.reopen import files_of
from engine.runs.trained import On, open_trained
from engine.spec import TaskTable
from files.naming import distinct_stems, inside, refuse_overwriting
from files.writing import replacing

PREDICTIONS_NAME = "predictions.json"
ENDINGS = (".png", "_labels.png")  # of what a task may draw of an image: the picture, and an index PNG beside it


@runtime_checkable
class Predicts(Protocol):
    """A trained model that can look at an image of any origin."""

    def predict_image(self, path: Path) -> dict[str, Any]:
        """Return what the model says of an image file, as plain JSON values; the model is in eval mode.

        Raises UnreadableImageError.
        """

    def draw_image(self, path: Path, values: dict[str, Any], picture: Path) -> list[Path]:
        """Write a PNG of the image with what `predict_image` returned, and what belongs beside it; return the paths.

        What belongs beside it is called as the picture, with one of ENDINGS.
        """


@runtime_checkable
class DrawsByScore(Protocol):
    """A trained model whose pictures show what it found with some score and more."""

    min_score: float


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Which pictures are drawn; predictions.json has all images and all that was found, whatever is drawn."""

    most: int | None = None
    """Of images, evenly spaced among those that are predicted; None draws all."""
    min_score: float | None = None
    """Of detections; None leaves the model's own."""

    def __post_init__(self) -> None:
        """Raise ValueError for a number or a score that is none."""
        if self.most is not None and self.most < 0:
            raise ValueError(f"--pictures {self.most}: it must not be negative; 0 draws none.")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"--min-score {self.min_score:g}: scores are from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What was written, and which images gave nothing."""

    file: Path
    images: int
    pictures: tuple[Path, ...]
    failed: tuple[str, ...]
    """A line for each, which begins with the image's path."""


def images_named(names: Sequence[str], channels: int = RGB) -> list[Path]:
    """Return the image files that paths, folders and glob patterns name, each once, in the given order.

    Of a folder those of so many channels.

    Raises FileNotFoundError for a name that matches nothing.
    """
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            found |= dict.fromkeys(find_images(path, channels))
            continue
        matches = [path] if path.is_file() else [Path(match) for match in sorted(glob(name, recursive=True))]
        files = [match for match in matches if match.is_file()]
        if not files:
            raise FileNotFoundError(f"{name}: no such image, folder, or pattern that matches a file.")
        found |= dict.fromkeys(files)
    return list(found)


def predict_images(
    run: Path,
    tasks: TaskTable,
    images: Sequence[Path],
    on: On,
    *,
    wanted: Pictures,
    out: Path | None,
    say: Callable[[str], None],
) -> Predicted:
    """Write `predictions.json` and pictures of images by the last checkpoint of the run; return what was written.

    They go to the folder `out`, RUN/predictions unless given. Every image has pictures of its own, which
    predictions.json names. An image that nothing can be said of, whatever the reason, is said and listed, and the
    others go on. The run's folder is enough: neither its data nor the weights that it started from are opened.

    Raises as `open_trained`, and ValueError where an output would be written over an image or a file of the run.
    """
    folder = inside(run, "predictions", source=run) if out is None else out
    stems = distinct_stems([image.stem for image in images], [str(image) for image in images], endings=ENDINGS)
    outputs = [folder / f"{stem}{ending}" for stem in stems for ending in ENDINGS]
    refuse_overwriting([folder / PREDICTIONS_NAME, *outputs], [*images, *files_of(run)])
    opened = open_trained(run, tasks, on, say=say)
    trained, fabric = opened.trained, opened.fabric
    if not isinstance(trained, Predicts):
        raise ValueError(f"{run}: a run of task {opened.recorded.spec.name!r}, which makes no predictions on images.")
    if wanted.min_score is not None:
        if not isinstance(trained, DrawsByScore):
            raise ValueError(f"--min-score: a run of task {opened.recorded.spec.name!r} finds nothing by score.")
        trained.min_score = wanted.min_score
    shown = {*(images if wanted.most is None else evenly_spaced(images, wanted.most))}
    entries: list[dict[str, Any]] = []
    pictures: list[Path] = []
    failed: list[str] = []
    for image, stem in zip(images, stems, strict=True):
        picture = folder / f"{stem}{ENDINGS[0]}"
        try:
            with torch.no_grad(), fabric.autocast():
                values = trained.predict_image(image)
            json.dumps(values)
            drawn = trained.draw_image(image, values, picture) if image in shown else []
        except UnreadableImageError as error:
            failed.append(str(error))
            say(f"warning: {error}")
        except Exception as error:  # of one image: the others go on, and the exit code tells
            failed.append(f"{image}: {type(error).__name__}: {error}")
            say(f"warning: {failed[-1]}")
        else:
            entries.append({"image": str(image), "pictures": [path.name for path in drawn], **values})
            pictures += drawn
    with replacing(folder / PREDICTIONS_NAME) as temporary:
        temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    if isinstance(trained, DrawsByScore) and pictures:
        scores = [found["score"] for entry in entries if entry["pictures"] for found in entry["detections"]]
        if max(scores, default=0.0) < trained.min_score:
            highest = f"the highest is {max(scores):.2g}" if scores else "there is none at all"
            least = f"a score of {trained.min_score:g} or more ({highest})"
            say(
                f"warning: no picture shows a detection: none has {least}; "
                f"--min-score draws lower ones, and {PREDICTIONS_NAME} has all."
            )
    file = folder / PREDICTIONS_NAME
    return Predicted(file=file, images=len(entries), pictures=tuple(pictures), failed=tuple(failed))
