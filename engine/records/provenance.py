"""Where a run's code and libraries come from."""

import subprocess
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "torch", "torchvision", "lightning-fabric", "timm", "numpy", "detectron2",
    "onedl-mmsegmentation", "onedl-mmengine", "mmcv-lite", "faster-coco-eval", "pycocotools", "fvcore", "faiss-cpu",
)  # fmt: skip


def git_commit() -> str | None:
    """Return the commit of the code, with `+dirty` where tracked files have changes; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        return None
    return f"{head}+dirty" if _git(root, "status", "--porcelain", "--untracked-files=no") else head


def library_versions() -> dict[str, str]:
    """Return the versions of the installed libraries that numbers depend on."""
    return dict(_versions())


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    """Look them up once: every record has them, and a look reads and parses a file for each."""
    found = []
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return tuple(found)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
