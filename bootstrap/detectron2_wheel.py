"""detectron2 as a wheel for any Python from 3.10 and any torch, with no compiler.

detectron2 publishes no wheel. `sal-detectron2` 0.7.2 on PyPI is upstream commit a59f0563 (17 April 2024) with
another version string, one bug fix in data/common.py and a test helper. As it is, pip refuses it on every
Python but 3.10; it also holds a compiled `_C` for CPython 3.10 that the parts used here do without (ROIAlign
and NMS come from torchvision), a top-level `tools` package, and asks for numpy<2 although it runs with NumPy
2. So the wheel is downloaded by pip from the user's own index, checked against its sha256, and written anew
without `_C` and `tools`, with metadata that say so.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path

ORIGIN = "sal-detectron2"
ORIGIN_VERSION = "0.7.2"
ORIGIN_FILE = "sal_detectron2-0.7.2-cp310-none-any.whl"
ORIGIN_INFO = "sal_detectron2-0.7.2.dist-info"
ORIGIN_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"

VERSION = "0.7.2+nocompile"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_FILE = f"detectron2-{VERSION}-py3-none-any.whl"

# black only formats printed configs; fvcore and iopath are imported everywhere, and the origin does not name them.
METADATA = f"""\
Metadata-Version: 2.1
Name: detectron2
Version: {VERSION}
Summary: Detectron2 without its compiled extension, repacked from {ORIGIN} {ORIGIN_VERSION}
Home-page: https://github.com/facebookresearch/detectron2
Author: FAIR
License: Apache-2.0
License-File: LICENSE
Requires-Python: >=3.10
Requires-Dist: Pillow>=7.1
Requires-Dist: matplotlib
Requires-Dist: pycocotools>=2.0.2
Requires-Dist: termcolor>=1.1
Requires-Dist: yacs>=0.1.8
Requires-Dist: tabulate
Requires-Dist: cloudpickle
Requires-Dist: tqdm>4.29.0
Requires-Dist: tensorboard
Requires-Dist: omegaconf<2.4,>=2.1
Requires-Dist: hydra-core>=1.1
Requires-Dist: packaging
Requires-Dist: numpy
Requires-Dist: fvcore
Requires-Dist: iopath
Requires-Dist: torch
Requires-Dist: torchvision

Repacked from the wheel of {ORIGIN} {ORIGIN_VERSION} (sha256 {ORIGIN_SHA256}),
which is https://github.com/facebookresearch/detectron2 at commit a59f0563 (17 April 2024) but for the version
string, one bug fix in detectron2/data/common.py and a test helper.

Removed: the compiled extension detectron2/_C (so deformable convolution, rotated boxes' operators and the
fast COCO evaluation are not there) and the top-level package `tools`.
Changed requirements: numpy without the bound <2; fvcore, iopath, torch and torchvision added; black and the
extras dropped.
The Python sources and the licence file are unchanged.
"""
WHEEL = "Wheel-Version: 1.0\nGenerator: mae-transfer bootstrap\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def fetch(folder: Path, pip: Callable[..., None]) -> Path:
    """Return the original wheel in `folder`, downloaded when it is not there yet; pip checks its sha256."""
    path = folder / ORIGIN_FILE
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == ORIGIN_SHA256:
        return path
    asked = folder / "origin.txt"
    asked.write_text(f"{ORIGIN}=={ORIGIN_VERSION} --hash=sha256:{ORIGIN_SHA256}\n")
    pip(
        *("download", "--no-deps", "--only-binary", ":all:", "--python-version", "3.10"),
        *("--dest", str(folder), "--requirement", str(asked)),
    )
    return path


def repack(origin: Path, folder: Path) -> Path:
    """Return the new py3-none-any wheel in `folder`; equal input gives equal bytes."""
    target = folder / WHEEL_FILE
    with zipfile.ZipFile(origin) as source:
        contents = {
            name: source.read(name)
            for name in sorted(source.namelist())
            if name.startswith("detectron2/") and not name.startswith("detectron2/_C.")
        }
        contents[f"{DIST_INFO}/LICENSE"] = source.read(f"{ORIGIN_INFO}/LICENSE")
    contents[f"{DIST_INFO}/METADATA"] = METADATA.encode()
    contents[f"{DIST_INFO}/WHEEL"] = WHEEL.encode()
    contents[f"{DIST_INFO}/top_level.txt"] = b"detectron2\n"
    record = f"{DIST_INFO}/RECORD"
    digests = {name: base64.urlsafe_b64encode(hashlib.sha256(data).digest()) for name, data in contents.items()}
    rows = [f"{name},sha256={digests[name].rstrip(b'=').decode()},{len(data)}\n" for name, data in contents.items()]
    contents[record] = "".join([*rows, f"{record},,\n"]).encode()
    with zipfile.ZipFile(target, "w") as wheel:
        for name, data in contents.items():
            info = zipfile.ZipInfo(name)  # dated 1980, so that the bytes depend on the contents only
            info.external_attr = 0o644 << 16
            wheel.writestr(info, data, zipfile.ZIP_DEFLATED)
    return target
