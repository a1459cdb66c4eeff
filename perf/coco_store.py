"""Time and memory of opening a train2017-sized annotation file, against pycocotools and detectron2.

    python perf/coco_store.py
    python perf/coco_store.py --images 20000

Writes 118,287 images and 860,001 instances with polygons of 2 decimals (one in 80 a crowd with run lengths) into a
temporary folder, which is removed at the end, and reads them in fresh processes. Prints seconds, ratios and the memory
of a process after reading; `unique` is what it does not share with the page cache.
"""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

CLASSES, INSTANCES_PER_IMAGE = 80, 860_001 / 118_287
MEASURE = """
import contextlib, io, sys, time
from pathlib import Path
{imports}
path = Path(sys.argv[1])
def unique():
    with open("/proc/self/smaps_rollup") as file:
        sizes = {{line.split()[0]: int(line.split()[1]) for line in file if line.endswith("kB\\n")}}
    return (sizes["Private_Dirty:"] + sizes["Private_Clean:"]) / 1024
before = unique()
began = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    content = {call}
print(time.perf_counter() - began, unique() - before)
"""
READERS = {
    "json.load": ("import json", "json.load(path.open())"),
    "pycocotools COCO()": ("from pycocotools.coco import COCO", "COCO(str(path))"),
    "detectron2 load_coco_json": (
        "from detectron2.data.datasets import load_coco_json",
        "load_coco_json(str(path), str(path.parent / 'train2017'))",
    ),
    "read_coco, first time": (
        "from detection.data.coco import read_coco",
        "read_coco(path, data=path.parent, split='train2017')",
    ),
    "read_coco, again": (
        "from detection.data.coco import read_coco",
        "read_coco(path, data=path.parent, split='train2017')",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    images: int = 118_287
    """Images of the file."""


def write(folder: Path, images: int) -> Path:
    """Write the annotations, and empty files for the images; return the path of the JSON."""
    rng = np.random.default_rng(0)
    (folder / "train2017").mkdir()
    path = folder / "instances_train2017.json"
    number = 0
    with path.open("w") as file:
        listed = [
            {"id": n, "file_name": f"{n:012}.jpg", "height": 480, "width": 640, "license": 1}
            | {"coco_url": f"http://images.cocodataset.org/train2017/{n:012}.jpg"}
            for n in range(1, images + 1)
        ]
        categories = [{"id": n, "name": f"class {n}"} for n in range(1, CLASSES + 1)]
        file.write(f'{{"images": {json.dumps(listed)}, "categories": {json.dumps(categories)}, "annotations": [')
        for image in range(1, images + 1):
            (folder / "train2017" / f"{image:012}.jpg").touch()
            while number < round(image * INSTANCES_PER_IMAGE):
                file.write(", " * (number > 0) + json.dumps(annotation(rng, number, image)))
                number += 1
        file.write("]}")
    return path


def annotation(rng: np.random.Generator, number: int, image: int) -> dict[str, object]:
    """Return an instance of a polygon with 6 to 44 points, or a crowd."""
    side = rng.uniform(10, 200, 2)
    corner = rng.uniform(0, 1, 2) * ((640, 480) - side)
    points = (corner + rng.uniform(0, 1, (int(rng.integers(6, 45)), 2)) * side).round(2)
    segmentation: object = [points.reshape(-1).tolist()]
    crowd = int(number % 80 == 0)
    if crowd:
        cuts = np.sort(rng.choice(640 * 480, 60, replace=False))
        segmentation = {"size": [480, 640], "counts": np.diff(cuts, prepend=0, append=640 * 480).tolist()}
    return {
        "id": number + 1,
        "image_id": image,
        "category_id": int(rng.integers(1, CLASSES + 1)),
        "bbox": [*corner.round(2).tolist(), *side.round(2).tolist()],
        "area": round(float(side.prod() / 2), 3),
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def main() -> None:
    """Print the figures."""
    args = tyro.cli(Args, description=__doc__)
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as name:
        path = write(Path(name), args.images)
        print(f"{args.images} images, {path.stat().st_size / 2**20:.0f} MiB of JSON")
        environment = {**os.environ, "PYTHONPATH": str(root), "MAE_TRANSFER_CACHE": str(Path(name) / "cache")}
        seconds = {}
        for reader, (imports, call) in READERS.items():
            code = MEASURE.format(imports=imports, call=call)
            done = subprocess.run(
                [sys.executable, "-c", code, str(path)], env=environment, check=True, capture_output=True, text=True
            )
            seconds[reader], memory = map(float, done.stdout.split())
            print(f"{reader:26} {seconds[reader]:7.2f} s  {memory:7.0f} MiB unique", flush=True)
        again = seconds["read_coco, again"]
        for reader in ("pycocotools COCO()", "detectron2 load_coco_json"):
            print(f"{reader} / read_coco, again: {seconds[reader] / again:.0f}x")
        kept = sum(file.stat().st_size for file in (Path(name) / "cache").iterdir())
        print(f"the cache has {kept / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
