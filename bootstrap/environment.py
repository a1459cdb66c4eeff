"""`make setup`: .venv with the pinned stack, detectron2 and the project, made when something changed.

A stamp in .venv, written last, holds a digest of everything the environment is made from. While it matches,
set-up does nothing; an interrupted or failed set-up leaves none and is done again. A second mark stands while
set-up runs: found at the start, it tells that the last one was cut off, maybe in the middle of a package, and
.venv is made anew.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path

from bootstrap import detectron2_wheel
from bootstrap.installer import Installer, SetupError, explain
from bootstrap.versions import HOSTS

ROOT = Path(__file__).resolve().parent.parent
INPUTS = (
    "constraints.txt",
    "setup.cfg",
    "pyproject.toml",
    "bootstrap/detectron2_wheel.py",
    "bootstrap/environment.py",
    "bootstrap/versions.py",
)
STAMP = "setup-complete"
RUNNING = "setup-running"
FREE_GB = 11  # 7 in .venv and up to 4 of downloads, with the CUDA build of torch

# Imported in the end, so that a broken installation is found here and not in the first run.
IMPORTS = (
    "torch",
    "torchvision",
    "timm",
    "lightning_fabric",
    "detectron2.modeling",
    "mmseg.models",
    "cv2",
    "tyro",
)


def digest(root: Path) -> str:
    """Return the digest of what .venv is made from: the input files, and its path (scripts hold it)."""
    total = hashlib.sha256(os.fsencode(root))
    for name in INPUTS:
        total.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    return total.hexdigest()


def is_complete(root: Path) -> bool:
    """Return whether .venv is there, can run and was made from the files as they are now."""
    stamp = root / ".venv" / STAMP
    return (
        stamp.is_file()
        and (root / ".venv/bin/python").exists()
        and stamp.read_text(encoding="ascii").strip() == digest(root)
    )


def write_stamp(root: Path) -> None:
    """Mark .venv as complete, all or nothing."""
    partial = root / ".venv" / (STAMP + ".part")
    partial.write_text(digest(root) + "\n", encoding="ascii")
    os.replace(partial, root / ".venv" / STAMP)


def python_of(environment: Path) -> str | None:
    """Return the environment's Python version, as 3.11; None when it cannot run or has no pip."""
    query = "import pip, sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [environment / "bin/python", "-c", query],
            capture_output=True,
            text=True,
            check=True,
            cwd=environment,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return answer.stdout.strip()


def reason_to_rebuild(root: Path, this_python: bool) -> str | None:
    """Return why .venv cannot be updated in place; None when it can."""
    environment = root / ".venv"
    if (environment / RUNNING).exists():
        return "an earlier set-up was cut off"
    version = python_of(environment)
    if version is None:
        return "its Python does not run"
    if str(environment) not in (environment / "bin/pip").read_text(encoding="utf-8", errors="replace"):
        return "it was made in another folder"
    running = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if this_python and version != running:
        return f"it has Python {version}, and {running} was asked for"
    if tuple(map(int, version.split("."))) < (3, 10):
        return f"it has Python {version}, and 3.10 or newer is needed"
    return None


def create(root: Path, this_python: bool) -> None:
    """Make .venv, or keep the one that can be updated."""
    environment = root / ".venv"
    if environment.exists():
        reason = reason_to_rebuild(root, this_python)
        if reason is None:
            print("      kept: the packages in it are brought up to date")
            (environment / RUNNING).touch()
            return
        print(f"      the old one is removed: {reason}")
        shutil.rmtree(environment)
    if importlib.util.find_spec("ensurepip") is None:
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(
            f"{sys.executable} lacks the module ensurepip, so it cannot make virtual environments. On "
            f"Debian and Ubuntu: sudo apt install python{version}-venv. Without sudo: a Python from conda, "
            "uv or pyenv, named by `make setup PYTHON=/path/to/python3`."
        )
    try:
        environment.mkdir()
        (environment / RUNNING).touch()
        venv.create(environment, with_pip=True, symlinks=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SetupError(
            f"{sys.executable} could not make {environment}: {error}. Is the disk full, or the folder "
            "read-only? Otherwise name another Python: `make setup PYTHON=/path/to/python3`."
        ) from error


def foreign_detectron2(python: Path) -> str | None:
    """Return where an importable detectron2 lives that set-up did not install; None without one."""
    query = (
        "import importlib.metadata as m, detectron2, detectron2.modeling\n"
        "try: version = m.version('detectron2')\n"
        "except m.PackageNotFoundError: version = 'without metadata'\n"
        "print(version, detectron2.__file__, sep='\\n')"
    )
    answer = subprocess.run([python, "-c", query], capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        return None
    version, location = answer.stdout.splitlines()[-2:]
    return None if version.endswith("+nocompile") else location


def install_detectron2(root: Path, python: Path, pip: Installer) -> None:
    """Install the repacked detectron2, unless the user has put one of their own into .venv."""
    location = foreign_detectron2(python)
    if location is not None:
        print(f"      left alone: there is one at {location}")
        return
    folder = root / "build/wheels"
    folder.mkdir(parents=True, exist_ok=True)
    wheel = detectron2_wheel.repack(detectron2_wheel.fetch(folder, pip), folder)
    pip("install", "--no-deps", str(wheel))


def check_imports(python: Path) -> None:
    """Raise SetupError naming the first package of the stack that does not import."""
    query = "import sys\nfor name in sys.argv[1:]: print(name, flush=True); __import__(name)"
    answer = subprocess.run(
        [python, "-W", "ignore", "-c", query, *IMPORTS], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        name = answer.stdout.split()[-1] if answer.stdout.split() else "python"
        last = answer.stderr.strip().splitlines()[-1] if answer.stderr.strip() else f"exit code {answer.returncode}"
        raise SetupError(f"{name} is installed but does not import: {last}. `make doctor` says what is missing.")


def install(root: Path, this_python: bool) -> None:
    """Bring .venv to the state that the input files describe, and stamp it."""
    environment = root / ".venv"
    started = time.monotonic()
    (environment / STAMP).unlink(missing_ok=True)
    free = shutil.disk_usage(root).free / 1e9
    if free < FREE_GB and not environment.exists():
        print(f"Only {free:.0f} GB are free here; with the CUDA build of torch set-up needs up to {FREE_GB}.")
    try:
        run_steps(root, this_python)
    except SetupError:
        (environment / RUNNING).unlink(missing_ok=True)  # pip undoes what it could not finish
        raise
    write_stamp(root)
    (environment / RUNNING).unlink()
    print(f"Set-up is complete after {time.monotonic() - started:.0f} s.", flush=True)


def run_steps(root: Path, this_python: bool) -> None:
    """Make or keep .venv and install everything into it."""
    python = root / ".venv/bin/python"
    pip = Installer(python, root / ".venv/setup.log")
    pinned = ("--constraint", str(root / "constraints.txt"))

    print("[1/6] virtual environment .venv", flush=True)
    create(root, this_python)
    print("[2/6] pip and setuptools", flush=True)
    pip("install", *pinned, "pip", "setuptools")
    print("[3/6] torch, the libraries and the project (up to 3 GB of downloads the first time)", flush=True)
    # No build isolation: three small libraries have no wheel, and would be built by whatever setuptools is
    # newest that day.
    pip("install", *pinned, "--no-build-isolation", "--editable", f"{root}[dev]")
    print(f"[4/6] {', '.join(HOSTS)}", flush=True)
    pip("install", *pinned, "--no-deps", *HOSTS)
    print("[5/6] detectron2", flush=True)
    install_detectron2(root, python, pip)
    print("[6/6] does everything import?", flush=True)
    check_imports(python)


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep a second set-up of the same folder waiting: `make test` and `make demo` may start together."""
    import fcntl

    handle = os.open(root / "constraints.txt", os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def main(arguments: list[str]) -> int:
    """Return 0 when .venv is complete, 1 after saying what failed."""
    parser = argparse.ArgumentParser(prog="python3 -m bootstrap setup", description="Make or update .venv.")
    parser.add_argument(
        "--this-python",
        action="store_true",
        help="rebuild .venv when it has another Python than the running one",
    )
    options = parser.parse_args(arguments)
    if is_complete(ROOT) and not options.this_python:
        return 0
    try:
        with alone(ROOT):
            if not is_complete(ROOT) or (options.this_python and reason_to_rebuild(ROOT, True) is not None):
                install(ROOT, options.this_python)
    except SetupError as error:
        print(f"\nSet-up failed: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"\nSet-up failed: {error}: {explain(str(error))}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make setup` takes it up again.", file=sys.stderr)
        return 130
    return 0
