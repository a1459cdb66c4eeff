"""`make doctor`: versions, devices, what is missing or untested, and the command that mends it."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from bootstrap.environment import ROOT, is_complete
from bootstrap.versions import Finding, Platform, compare, normalise, pinned, required

SHOWN = (
    "torch",
    "torchvision",
    "timm",
    "lightning-fabric",
    "detectron2",
    "onedl-mmsegmentation",
    "onedl-mmengine",
    "mmcv-lite",
    "numpy",
    "opencv-python-headless",
    "pycocotools",
)
# Distributions that overwrite the files of one that the project needs.
CLASHES = {
    "opencv-python": "opencv-python-headless",
    "opencv-contrib-python": "opencv-python-headless",
    "mmengine": "onedl-mmengine",
    "mmsegmentation": "onedl-mmsegmentation",
    "mmcv": "mmcv-lite",
}


def remedy(finding: Finding) -> str:
    """Return one line: what is wrong with a distribution, and the command that mends it."""
    state = "missing" if finding.found is None else f"{finding.found} instead of {finding.wanted}"
    version = "" if finding.wanted == "any version" else f"=={finding.wanted}"
    command = f".venv/bin/python -m pip install --no-deps '{finding.name}{version}'"
    return f"{finding.name}: {state}. Run: {command}"


def clashes(installed: Mapping[str, str]) -> list[str]:
    """Return one line per distribution that overwrites another's files, with the command that mends it."""
    pip = ".venv/bin/python -m pip"
    return [
        f"{name}: overwrites files of {other}. Run: {pip} uninstall -y {name} && {pip} install --no-deps "
        f"--force-reinstall -c constraints.txt {other}"
        for name, other in CLASHES.items()
        if name in installed
    ]


def examine(root: Path) -> tuple[list[str], list[str]]:
    """Return the facts to print and the troubles, each with its way out."""
    facts = [f"machine     {platform.platform()}"]
    python = root / ".venv/bin/python"
    if not python.exists():
        return [*facts, f"python      {platform.python_version()} ({sys.executable})"], [
            ".venv is not there. Run: make setup"
        ]
    answer = subprocess.run(
        [python, "-m", "bootstrap.probe"],
        cwd=root,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if answer.returncode != 0:
        words = (answer.stderr.strip() or f"exit code {answer.returncode}").splitlines()[-1]
        return facts, [f".venv does not run: {words}. Run: rm -rf .venv && make setup"]
    report = json.loads(answer.stdout.splitlines()[-1])
    installed = {normalise(name): version for name, version in report["installed"].items()}
    here = Platform(
        python_version=report["python_version"],
        sys_platform=report["sys_platform"],
        platform_machine=report["platform_machine"],
    )
    facts.append(f"python      {report['python']} ({python})")
    facts.extend(f"{name:<24}{installed.get(name, 'not installed')}" for name in SHOWN)
    facts.extend(report["devices"])
    if shutil.which("nvidia-smi") and any(line.startswith("CUDA: no device") for line in report["devices"]):
        facts.append(
            "note: an NVIDIA driver is here, but torch finds no device. Compare `nvidia-smi` with the CUDA "
            "version above (a driver must be at least as new) and look at CUDA_VISIBLE_DEVICES; for an "
            "older driver set PIP_EXTRA_INDEX_URL to an index with a build of torch for it, then: rm -rf "
            ".venv && make setup"
        )

    pins = pinned((root / "constraints.txt").read_text(encoding="utf-8"), here)
    troubles = [remedy(finding) for finding in compare(pins, required(root / "setup.cfg"), installed)]
    troubles += clashes(installed)
    troubles += [
        f"{name} does not import: {words}. Run: rm -rf .venv && make setup"
        for name, words in report["failed_imports"].items()
    ]
    if "mae-transfer" not in installed:
        troubles.append("the project itself is not installed. Run: rm -f .venv/setup-complete && make setup")
    if not is_complete(root):
        troubles.append(".venv is older than the files it is made from, or its set-up did not finish. Run: make setup")
    return facts, troubles


def main(arguments: list[str]) -> int:
    """Return 0 when all that is needed is there, 1 otherwise."""
    if arguments:
        print(f"make doctor takes no arguments, and got {' '.join(arguments)}", file=sys.stderr)
        return 2
    facts, troubles = examine(ROOT)
    print("\n".join(facts))
    if not troubles:
        print("\nAll is as tested.")
        return 0
    print(f"\n{len(troubles)} to mend:")
    print("\n".join(f"- {line}" for line in troubles))
    return 1
