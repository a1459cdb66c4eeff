"""`make doctor`: versions, devices, what is missing or untested, and the command that mends it.

`main` is for any Python; it calls this file again in .venv's own, which alone can tell.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bootstrap.environment import HOSTS, ROOT, is_complete, python_of

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ANEW = "rm -rf .venv && make setup"
PIP = ".venv/bin/python -m pip"
IMPORTS = ("torch", "torchvision", "timm", "lightning_fabric", "detectron2.modeling", "mmseg.models", "cv2", "tyro")
# Modules that several distributions bring; of two that are installed the second has overwritten the first.
CLAIMED = ("cv2", "detectron2", "mmcv", "mmengine", "mmseg")


def failed_imports() -> list[str]:
    """Return one line per package of the stack that does not import."""
    failed = []
    for name in IMPORTS:
        try:
            importlib.import_module(name)
        except Exception as error:  # a broken binary raises OSError, AttributeError, RuntimeError, ...
            failed.append(f"{name} does not import: {type(error).__name__}: {error}".splitlines()[0])
    return failed


def devices() -> list[str]:
    """Return one line per device that torch can use, and what it means for bfloat16."""
    try:
        import torch
    except Exception:  # failed_imports tells it
        return []
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    native = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    lines = [
        f"CPU: {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, bfloat16 "
        + (f"in hardware ({', '.join(native)})" if native else "emulated: autocast may gain nothing")
    ]
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        bf16 = "bfloat16" if properties.major >= 8 else "no bfloat16 in hardware: use 16-mixed or 32-true"
        lines.append(f"CUDA {index}: {properties.name}, {properties.total_memory / 2**30:.0f} GiB, {bf16}")
    if len(lines) == 1:
        lines.append(f"CUDA: no device (torch is built for {torch.version.cuda or 'CPU only'})")
        if shutil.which("nvidia-smi"):
            lines.append(
                "note: an NVIDIA driver is here, but torch finds no device. Compare `nvidia-smi` with the CUDA version "
                "above (a driver must be at least as new) and look at CUDA_VISIBLE_DEVICES; for an older driver set "
                f"PIP_EXTRA_INDEX_URL to an index with a build of torch for it, then: {ANEW}"
            )
    return lines


def pinned(constraints: str, machine: dict[str, str] | None = None) -> dict[str, Requirement]:
    """Return name -> line of the constraints whose markers hold on `machine`, by default this one.

    Raises ValueError for a line that is no requirement.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = [line.partition("#")[0].strip() for line in constraints.splitlines()]
    pins = [Requirement(line) for line in lines if line]
    return {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate(machine)}


def asked() -> list[str]:
    """Return the distributions that the installed project asks for (`dev` too) and the hosts."""
    return [*pinned("\n".join(importlib.metadata.requires("mae-transfer") or ()), {"extra": "dev"}), *HOSTS]


def differing(pins: Mapping[str, Requirement], needed: Collection[str], installed: Mapping[str, str]) -> list[str]:
    """Return one line for each distribution that is missing or of another version than the pinned one.

    A pinned distribution that nobody asks for is looked at only when it is installed: which of torch's companions come
    along depends on its build. Another build of the same release is the same version: torch 2.14.1+cpu is 2.14.1.
    """
    lines = []
    for name in sorted({*needed, *pins}):
        pin, found = pins.get(name), installed.get(name)
        wanted = f"{name}{pin.specifier}" if pin else name
        if found is None and name in needed:
            lines.append(f"{name}: missing. Run: {PIP} install --no-deps '{wanted}'")
        elif found is not None and pin is not None and not pin.specifier.contains(found, prereleases=True):
            lines.append(f"{name}: {found} is not the tested version. Run: {PIP} install --no-deps '{wanted}'")
    return lines


def clashes(owners: Mapping[str, Collection[str]]) -> list[str]:
    """Return one line per module of CLAIMED that two distributions have written; `owners`: module -> distributions."""
    found = {module: sorted({*owners.get(module, ())}) for module in CLAIMED}
    return [
        f"{module}: {' and '.join(names)} overwrite each other. Run: {ANEW}"
        for module, names in found.items()
        if len(names) > 1
    ]


def examine(root: Path) -> int:
    """Print the facts of the running environment and its troubles, each with its way out; return 1 for any."""
    print(f"machine     {platform.platform()}\npython      {platform.python_version()} ({sys.executable})")
    installed = {
        re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower(): item.version
        for item in importlib.metadata.distributions()
        if item.metadata["Name"]
    }
    troubles = []
    for name in ("packaging", "mae-transfer"):  # without these two the rest cannot be told
        if name not in installed:
            troubles.append(f"{name} is not installed. Run: rm -f .venv/setup-state && make setup")
    if not troubles:
        needed = asked()
        for name in ("detectron2", *needed):
            print(f"{name:<24}{installed.get(name, 'not installed')}")
        pins = pinned((root / "constraints.txt").read_text(encoding="utf-8"))
        troubles += differing(pins, needed, installed)
    troubles += clashes(importlib.metadata.packages_distributions())
    troubles += [f"{line}. Run: {ANEW}" for line in failed_imports()]
    print("\n".join(devices()))
    if not is_complete(root):
        troubles.append(".venv is older than the files it is made from, or its set-up did not finish. Run: make setup")
    print(f"\n{len(troubles)} to mend:" if troubles else "\nAll is as tested.")
    for line in troubles:
        print(f"- {line}")
    return 1 if troubles else 0


def main() -> int:
    """Return 0 when all that is needed is there, 1 otherwise."""
    if not (ROOT / ".venv").exists():
        print(".venv is not there. Run: make setup")
        return 1
    if python_of(ROOT / ".venv") is None:
        print(f".venv does not run, or has no pip. Run: {ANEW}")
        return 1
    command = [str(ROOT / ".venv/bin/python"), "-W", "ignore", "-m", "bootstrap.doctor"]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code not in (0, 1):
        print(f"The look at .venv ended with code {code}. Run: {ANEW}")
    return min(abs(code), 1)


if __name__ == "__main__":
    sys.exit(examine(ROOT))
