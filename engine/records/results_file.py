"""The file of per-image results that a run leaves beside its record."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from files.parsing import parse_json
from files.writing import replacing

RESULTS_NAME = "results.jsonl"


@dataclass(frozen=True)
class ImageResult:
    """What the model said of one validation image, as plain JSON values; enough to compute the metrics again."""

    image_id: str
    values: dict[str, Any]


@dataclass(frozen=True)
class ResultsFile:
    """The file of per-image results, as a record names it."""

    name: str
    sha256: str


def write_results(folder: Path, results: tuple[ImageResult, ...]) -> ResultsFile:
    """Write one JSON line per image, `{"image_id": ..., ...}`, atomically and return what a record says of the file."""
    digest = hashlib.sha256()
    with replacing(folder / RESULTS_NAME) as temporary, temporary.open("wb") as file:
        for result in results:
            line = json.dumps({"image_id": result.image_id, **result.values}).encode() + b"\n"
            digest.update(line)
            file.write(line)
    return ResultsFile(RESULTS_NAME, digest.hexdigest())


def read_results(path: Path, *, sha256: str | None = None) -> list[ImageResult]:
    """Return what `write_results` wrote; `sha256` is what the record says of the file, None where it says nothing.

    Raises OSError, and ValueError that names the file where it is another than the record's, or no results file.
    """
    content = path.read_bytes()
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"{path}: is not the file that its record speaks of (sha256 {sha256[:12]}...); it is damaged, or was "
            "replaced. Restore it from a copy, or make it again by --resume."
        )
    results = []
    for number, text in enumerate(content.split(b"\n"), start=1):
        if not text.strip():
            continue
        line = parse_json(text, f"{path}: line {number}", surrogates=True)
        if not isinstance(line, dict) or not isinstance(line.get("image_id"), str):
            raise ValueError(f"{path}: line {number} is no result of an image: it has no image_id that is a string.")
        results.append(ImageResult(line.pop("image_id"), line))
    return results
