"""`make wheels`: what a GPU machine without internet lacks, as wheels for its Python 3.12 (docs/gpu.md).

The machine is taken to have PyTorch, torchvision, timm, transformers, SciPy, OpenCV and pandas, as images for GPU work
have. LACKING is what the project needs besides, with what those need in turn. Versions are those of constraints.txt,
as for a Linux machine with Python 3.12. Other versions of PyTorch and its companions stay as the machine has them.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bootstrap import detectron2_wheel
from bootstrap.doctor import pinned
from bootstrap.environment import ROOT
from bootstrap.installer import SetupError, run_pip

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LACKING = (
    *("addict", "annotated-types", "docstring-parser", "faster-coco-eval", "ftfy", "hydra-core", "lightning-fabric"),
    *("mmcv-lite", "omegaconf", "onedl-mmengine", "platformdirs", "prettytable", "pycocotools", "pydantic"),
    *("pydantic-core", "termcolor", "typeguard", "typing-inspection", "tyro", "wcwidth", "yacs", "yapf"),
)
# published as sources alone, and pure Python
BUILT = ("antlr4-python3-runtime", "fvcore", "iopath", "onedl-mmsegmentation")
PYTHON = "3.12"
MACHINE = {"python_version": PYTHON, "python_full_version": "3.12.0", "sys_platform": "linux", "extra": ""}
PLATFORMS = tuple(f"manylinux{name}_x86_64" for name in ("_2_28", "_2_27", "_2_26", "_2_24", "_2_17", "2014", "1"))
LIMIT = 64 * 2**20
"""Bytes of wheels and tree together that such machines are sent at once."""


def wanted(constraints: str, names: tuple[str, ...]) -> list[str]:
    """Return `name==version` of each for Python 3.12. Raises SetupError for what is not pinned."""
    pins: Mapping[str, Requirement] = pinned(constraints, MACHINE)
    if missing := [name for name in names if name not in pins]:
        raise SetupError(f"constraints.txt pins no {', '.join(missing)}; add a line for each.")
    return [f"{name}{pins[name].specifier}" for name in names]


def collect(root: Path, folder: Path, pip: Callable[..., None]) -> list[Path]:
    """Return the wheels in `folder`, which holds these alone afterwards."""
    constraints = (root / "constraints.txt").read_text(encoding="utf-8")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()
    target = ("--python-version", PYTHON, "--implementation", "cp", "--only-binary", ":all:")
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    print(f"[1/3] {len(LACKING)} wheels", flush=True)
    pip("download", "--no-deps", *target, *platforms, "--dest", str(folder), *wanted(constraints, LACKING))
    print(f"[2/3] {', '.join(BUILT)}, from their sources", flush=True)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), *wanted(constraints, BUILT))
    print("[3/3] detectron2, repacked", flush=True)
    kept = root / "build/wheels"
    kept.mkdir(parents=True, exist_ok=True)
    detectron2_wheel.repack(detectron2_wheel.fetch(kept, pip), folder)
    found = sorted(folder.glob("*.whl"))
    if strange := [path.name for path in found if not suits(path.name)]:
        raise SetupError(f"{', '.join(strange)}: no wheel for Python {PYTHON} on Linux, x86_64.")
    return found


def suits(name: str) -> bool:
    """Return whether a wheel of this name installs with Python 3.12 on Linux, x86_64."""
    python, abi, platform = name.removesuffix(".whl").split("-")[-3:]
    anywhere = platform == "any" or (platform.startswith("manylinux") and "x86_64" in platform)
    return anywhere and ("py3" in python.split(".") or "cp312" in python.split(".") or abi == "abi3")


def verdict(wheels: int, tree: int) -> tuple[str, bool]:
    """Return what to say of so many bytes, and whether they are few enough."""
    total = wheels + tree
    said = f"{wheels / 2**20:.1f} MiB of wheels, {tree / 2**20:.1f} MiB of the tree: {total / 2**20:.1f} MiB"
    if total <= LIMIT:
        return f"{said}, within {LIMIT // 2**20} MiB.", True
    return f"{said}, more than the {LIMIT // 2**20} MiB that can be sent at once; send them in two parts.", False


def size_of_tree(root: Path) -> int:
    """Return the bytes of the files that git tracks. Raises SetupError outside a clone."""
    command = ["git", "-C", str(root), "ls-files", "-z"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, errors="surrogateescape", check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(f"the size of the tree is not known, since git says nothing of it ({error})") from error
    paths = [root / name for name in listed.split("\0") if name]
    return sum(path.stat().st_size for path in paths if path.is_file())


def main() -> int:
    """Return 0 when all wheels are there and few enough, 1 after saying what is wrong."""
    log = ROOT / "build/wheels.log"
    log.parent.mkdir(exist_ok=True)
    try:
        found = collect(ROOT, ROOT / "wheels", functools.partial(run_pip, Path(sys.executable), log))
        said, fine = verdict(sum(path.stat().st_size for path in found), size_of_tree(ROOT))
    except (SetupError, OSError) as error:
        print(f"\nNo wheels: {error}", file=sys.stderr)
        return 1
    print("\n".join(f"  {path.stat().st_size / 2**20:6.1f} MiB  {path.name}" for path in found))
    print(f"wheels/: {len(found)} wheels; {said}", file=sys.stdout if fine else sys.stderr)
    if fine:
        print("On the GPU machine, in a copy of this folder: python3 -m pip install --no-deps --no-index wheels/*.whl")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
