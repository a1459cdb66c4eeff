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
import csv
import hashlib
import io
import os
import re
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import Parser
from pathlib import Path

from bootstrap.installer import SetupError

ORIGIN = "sal-detectron2"
ORIGIN_VERSION = "0.7.2"
ORIGIN_FILE = "sal_detectron2-0.7.2-cp310-none-any.whl"
ORIGIN_SHA256 = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"

VERSION = "0.7.2+nocompile"
DIST_INFO = f"detectron2-{VERSION}.dist-info"
WHEEL_FILE = f"detectron2-{VERSION}-py3-none-any.whl"

# black only formats printed configs, dataclasses is for Python 3.6.
DROPPED_REQUIREMENTS = ("black", "dataclasses", "numpy")
# fvcore and iopath are imported everywhere, and the origin does not name them.
ADDED_REQUIREMENTS = ("numpy", "fvcore", "iopath", "torch", "torchvision")
DESCRIPTION = f"""\
Repacked from the wheel of {ORIGIN} {ORIGIN_VERSION} (sha256 {ORIGIN_SHA256}),
which is https://github.com/facebookresearch/detectron2 at commit a59f0563 (17 April 2024) but for the version
string, one bug fix in detectron2/data/common.py and a test helper.

Removed: the compiled extension detectron2/_C (so deformable convolution, rotated boxes' operators and the
fast COCO evaluation are not there) and the top-level package `tools`.
Changed requirements: numpy without the bound <2; fvcore, iopath, torch and torchvision added; black and the
extras dropped.
The Python sources and the licence file are unchanged.
"""


def sha256(path: Path) -> str:
    """Return the file's sha256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(folder: Path, pip: Callable[..., None]) -> Path:
    """Return the original wheel in `folder`, downloaded when it is not there yet, its sha256 checked."""
    path = folder / ORIGIN_FILE
    if path.exists() and sha256(path) != ORIGIN_SHA256:
        path.unlink()  # half a download of an earlier run
    if not path.exists():
        pip(
            *("download", "--no-deps", "--only-binary", ":all:", "--python-version", "3.10"),
            *("--dest", str(folder), f"{ORIGIN}=={ORIGIN_VERSION}"),
        )
    check(path, ORIGIN_SHA256)
    return path


def check(path: Path, expected: str) -> None:
    """Raise SetupError unless the file is there and has the expected sha256."""
    if not path.exists():
        found = ", ".join(sorted(other.name for other in path.parent.glob("*.whl"))) or "no wheel"
        raise SetupError(
            f"{path.name} was expected in {path.parent}, which holds {found}: the package index serves "
            f"another build of {ORIGIN} {ORIGIN_VERSION}. Use another index (PIP_INDEX_URL), or install a "
            "detectron2 of your own into .venv."
        )
    actual = sha256(path)
    if actual != expected:
        raise SetupError(
            f"{path.name} has sha256 {actual}, expected {expected}: it is not the file that was reviewed, "
            f"so it is not installed. Delete {path} and run `make setup` again; if it stays so, your "
            "package index serves another file under this name: use another index (PIP_INDEX_URL), or "
            "install a detectron2 of your own into .venv."
        )


def repack(origin: Path, folder: Path) -> Path:
    """Return the new py3-none-any wheel in `folder`; equal input gives equal bytes.

    Raises SetupError when a compiled file would be left in it, since the tag would then be a lie.
    """
    target = folder / WHEEL_FILE
    partial = target.with_suffix(".part")
    record: list[tuple[str, str, int | str]] = []

    with zipfile.ZipFile(origin) as source, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as wheel:

        def add(name: str, data: bytes) -> None:
            info = zipfile.ZipInfo(name)  # dated 1980, so that the bytes depend on the contents only
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            wheel.writestr(info, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append((name, f"sha256={digest}", len(data)))

        old_info = next(name.split("/")[0] for name in source.namelist() if name.endswith(".dist-info/METADATA"))
        for name in sorted(source.namelist()):
            if name.startswith("detectron2/") and not name.endswith("/") and not re.match(r"detectron2/_C\b", name):
                if name.endswith((".so", ".pyd", ".dylib")):
                    raise SetupError(
                        f"{origin.name} holds {name}: compiled files do not belong in a py3-none-any wheel."
                    )
                add(name, source.read(name))
        add(f"{DIST_INFO}/LICENSE", source.read(f"{old_info}/LICENSE"))
        add(f"{DIST_INFO}/METADATA", metadata(source.read(f"{old_info}/METADATA").decode()).encode())
        add(f"{DIST_INFO}/WHEEL", wheel_description().encode())
        add(f"{DIST_INFO}/top_level.txt", b"detectron2\n")
        record.append((f"{DIST_INFO}/RECORD", "", ""))
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(record)
        wheel.writestr(zipfile.ZipInfo(f"{DIST_INFO}/RECORD"), table.getvalue())

    os.replace(partial, target)
    return target


def metadata(origin: str) -> str:
    """Return the METADATA of the repacked wheel, made from the origin's."""
    old = Parser().parsestr(origin)
    new = Message()
    new["Metadata-Version"] = "2.1"
    new["Name"] = "detectron2"
    new["Version"] = VERSION
    new["Summary"] = f"Detectron2 without its compiled extension, repacked from {ORIGIN} {ORIGIN_VERSION}"
    for field in ("Home-page", "Author"):
        if old[field]:
            new[field] = old[field]
    new["License"] = "Apache-2.0"
    new["License-File"] = "LICENSE"
    new["Requires-Python"] = ">=3.10"
    for requirement in old.get_all("Requires-Dist", []):
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()
        if name not in DROPPED_REQUIREMENTS and "extra ==" not in requirement:
            new["Requires-Dist"] = requirement
    for name in ADDED_REQUIREMENTS:
        new["Requires-Dist"] = name
    new.set_payload(DESCRIPTION)
    return new.as_string(maxheaderlen=0)


def wheel_description() -> str:
    """Return the WHEEL file: pure Python, any platform."""
    return "Wheel-Version: 1.0\nGenerator: mae-transfer bootstrap\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
