"""`make setup`: .venv with the pinned stack, detectron2 and the project, made when something changed.

A file in .venv holds a digest of everything that the environment is made from. While it matches, set-up does nothing.
The file is empty while set-up runs: found so at the start, it tells that the last one was cut off, maybe in the middle
of a package, and .venv is made anew. A set-up that failed leaves none, and the next one goes on with its .venv.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

from bootstrap import detectron2_wheel
from bootstrap.installer import SetupError, explain, run_pip

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("constraints.txt", "setup.cfg", "pyproject.toml", "bootstrap/detectron2_wheel.py", "bootstrap/environment.py")
STATE = ".venv/setup-state"
# Installed with --no-deps: their metadata ask for opencv-python and mmengine, which clash with the headless
# build and with onedl-mmengine. setup.cfg names what they need.
HOSTS = ("mmcv-lite", "onedl-mmengine", "onedl-mmsegmentation")


def digest(root: Path) -> str:
    """Return the digest of what .venv is made from: the input files, and its path (scripts hold it)."""
    total = hashlib.sha256(os.fsencode(root))
    for name in INPUTS:
        total.update(name.encode() + b"\0" + (root / name).read_bytes() + b"\0")
    return total.hexdigest()


def is_complete(root: Path) -> bool:
    """Return whether .venv is there, can run and was made from the files as they are now."""
    state = root / STATE
    return state.is_file() and (root / ".venv/bin/python").exists() and state.read_text() == digest(root)


def python_of(environment: Path) -> tuple[int, ...] | None:
    """Return the environment's Python version, as (3, 11); None when it cannot run or has no pip."""
    command = [str(environment / "bin/python"), "-c", "import pip, sys; print(*sys.version_info[:2])"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=environment)
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(map(int, answer.stdout.split()))


def reason_to_rebuild(root: Path, this_python: bool) -> str | None:
    """Return why .venv cannot be updated in place; None when it can."""
    environment, state = root / ".venv", root / STATE
    if state.exists() and not state.read_text():
        return "an earlier set-up was cut off"
    version = python_of(environment)
    if version is None:
        return "its Python does not run"
    if str(environment) not in (environment / "bin/pip").read_text(encoding="utf-8", errors="replace"):
        return "it was made in another folder"
    if version < (3, 10) or (this_python and version != sys.version_info[:2]):
        return f"it has Python {version[0]}.{version[1]}"
    return None


def create(root: Path, this_python: bool) -> None:
    """Make .venv, or keep the one that can be updated."""
    environment = root / ".venv"
    if environment.exists() and (reason := reason_to_rebuild(root, this_python)):
        print(f"      the old one is removed: {reason}", flush=True)
        (environment / "bin/python").unlink(missing_ok=True)  # first, so that half an environment is never kept
        shutil.rmtree(environment)
    kept = environment.exists()
    if not kept and importlib.util.find_spec("ensurepip") is None:
        raise SetupError(
            f"{sys.executable} lacks the module ensurepip, so it cannot make virtual environments. On Debian and "
            f"Ubuntu: sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv. Without sudo: a Python "
            "from conda, uv or pyenv, named by `make setup PYTHON=/path/to/python3`."
        )
    environment.mkdir(exist_ok=True)
    (root / STATE).write_text("")
    if kept:
        print("      kept: the packages in it are brought up to date", flush=True)
    else:
        venv.create(environment, with_pip=True, symlinks=True)


def detectron2(root: Path, python: Path, pip: functools.partial[None]) -> list[str]:
    """Return the repacked wheel to install; nothing where the user has put a detectron2 of their own into .venv."""
    query = "import detectron2.modeling, importlib.metadata; print(importlib.metadata.version('detectron2'))"
    found = subprocess.run([python, "-c", query], capture_output=True, text=True, check=False)
    if found.returncode == 0 and not found.stdout.strip().endswith("+nocompile"):
        print(f"      detectron2 {found.stdout.split()[-1]} is not of this set-up: left alone", flush=True)
        return []
    folder = root / "build/wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return [str(detectron2_wheel.repack(detectron2_wheel.fetch(folder, pip), folder))]


def check_imports(root: Path, python: Path) -> None:
    """Raise SetupError where a package of the stack does not import: better here than in the first run."""
    query = "import sys, bootstrap.doctor as d; sys.exit('\\n'.join(d.failed_imports()) or 0)"
    command = [str(python), "-W", "ignore", "-c", query]
    answer = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
    if answer.returncode != 0:
        words = answer.stderr.strip() or f"exit code {answer.returncode}"
        raise SetupError(f"{words.splitlines()[-1]}. `make doctor` says what is missing.")


def install(root: Path, this_python: bool) -> None:
    """Bring .venv to the state that the input files describe."""
    started = time.monotonic()
    python = root / ".venv/bin/python"
    pip = functools.partial(run_pip, python, root / ".venv/setup.log")
    pinned = ("--constraint", str(root / "constraints.txt"))

    print("[1/5] virtual environment .venv", flush=True)
    create(root, this_python)
    print("[2/5] pip and setuptools", flush=True)
    pip("install", *pinned, "pip", "setuptools")
    print("[3/5] torch, the libraries and the project (up to 3 GB of downloads the first time)", flush=True)
    # No build isolation: three small libraries have no wheel, and would be built by whatever setuptools is
    # newest that day.
    pip("install", *pinned, "--no-build-isolation", "--editable", f"{root}[dev]")
    print(f"[4/5] {', '.join(HOSTS)}, detectron2", flush=True)
    pip("install", *pinned, "--no-deps", *HOSTS, *detectron2(root, python, pip))
    print("[5/5] does everything import?", flush=True)
    check_imports(root, python)
    (root / STATE).write_text(digest(root))
    print(f"Set-up is complete after {time.monotonic() - started:.0f} s.", flush=True)


def main(this_python: bool) -> int:
    """Return 0 when .venv is complete, 1 after saying what failed; `this_python`: .venv shall have the running one."""
    if is_complete(ROOT) and not this_python:
        return 0
    try:
        with (ROOT / "constraints.txt").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # `make test` and `make demo` may start together
            if not is_complete(ROOT) or (this_python and reason_to_rebuild(ROOT, True)):
                install(ROOT, this_python)
    except SetupError as error:
        (ROOT / STATE).unlink(missing_ok=True)  # pip has undone what it could not finish
        print(f"\nSet-up failed: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"\nSet-up failed: {error}: {explain(str(error))}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. `make setup` takes it up again.", file=sys.stderr)
        return 130
    return 0
