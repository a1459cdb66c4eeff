"""When .venv counts as complete, when it is rebuilt, and what a failure says."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bootstrap import __main__ as entry
from bootstrap import environment
from bootstrap.installer import Installer, SetupError, explain


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose .venv set-up has just finished."""
    for name in environment.INPUTS:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"contents of {name}")
    binaries = tmp_path / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to(sys.executable)
    (binaries / "pip").write_text(f"#!{binaries}/python\n")
    environment.write_stamp(tmp_path)
    return tmp_path


def test_complete_until_an_input_changes(project: Path) -> None:
    assert environment.is_complete(project)
    for name in environment.INPUTS:
        before = (project / name).read_text()
        (project / name).write_text(before + "!")
        assert not environment.is_complete(project), name
        (project / name).write_text(before)
    assert environment.is_complete(project)


def test_incomplete_without_its_python_its_stamp_or_in_another_folder(project: Path) -> None:
    moved = project.parent / f"{project.name}-moved"
    project.rename(moved)
    assert not environment.is_complete(moved)
    moved.rename(project)
    assert environment.is_complete(project)
    (project / ".venv/bin/python").unlink()
    assert not environment.is_complete(project)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    (project / ".venv" / environment.STAMP).unlink()
    assert not environment.is_complete(project)


@pytest.mark.parametrize(("error", "cut_off"), [(SetupError("no network"), False), (KeyboardInterrupt(), True)])
def test_a_failed_setup_is_done_again_and_a_cut_off_one_from_scratch(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, cut_off: bool
) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Installer, "__call__", fail)
    with pytest.raises(type(error)):
        environment.install(project, this_python=False)
    assert not environment.is_complete(project)
    assert (project / ".venv" / environment.RUNNING).exists() == cut_off


def test_reasons_to_rebuild(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert environment.reason_to_rebuild(project, this_python=True) is None
    monkeypatch.setattr(environment, "python_of", lambda folder: "3.99")
    assert environment.reason_to_rebuild(project, this_python=False) is None
    assert "it has Python 3.99, and 3." in str(environment.reason_to_rebuild(project, this_python=True))
    monkeypatch.setattr(environment, "python_of", lambda folder: "3.9")
    assert environment.reason_to_rebuild(project, this_python=False) == (
        "it has Python 3.9, and 3.10 or newer is needed"
    )
    monkeypatch.setattr(environment, "python_of", lambda folder: None)
    assert environment.reason_to_rebuild(project, this_python=False) == "its Python does not run"
    monkeypatch.setattr(environment, "python_of", lambda folder: "3.11")
    (project / ".venv/bin/pip").write_text("#!/elsewhere/.venv/bin/python\n")
    assert environment.reason_to_rebuild(project, this_python=False) == "it was made in another folder"
    (project / ".venv" / environment.RUNNING).touch()
    assert environment.reason_to_rebuild(project, this_python=False) == "an earlier set-up was cut off"


def test_missing_ensurepip_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(SetupError, match=rf"apt install python{version}-venv"):
        environment.create(tmp_path, this_python=False)


def test_an_old_python_is_told_which_one_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry.sys, "version_info", (3, 8, 18))
    monkeypatch.setattr(entry.shutil, "which", lambda name: name if name == "python3.12" else None)
    assert "3.10 or newer is needed" in entry.refusal()
    assert entry.refusal().endswith("is 3.8.18. Run: make setup PYTHON=python3.12")
    monkeypatch.setattr(entry.shutil, "which", lambda name: None)
    assert "install one (conda, uv and pyenv do that without sudo)" in entry.refusal()


@pytest.mark.parametrize(
    ("output", "advice"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", "the disk (or your quota) is full"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "pip cache purge"),
        (
            "NewConnectionError: Failed to establish a new connection\nERROR: No matching distribution found",
            "the package index cannot be reached",
        ),
        ("ERROR: No matching distribution found for torch==2.14.1", "no such version for this Python"),
        ("ERROR: ResolutionImpossible: for help visit", "PIP_CONSTRAINT"),
        ("PermissionError: [Errno 13] Permission denied: '/opt'", "cannot be written to"),
        ("something new", "not a known one"),
    ],
)
def test_pip_failures_are_explained(output: str, advice: str) -> None:
    assert advice in explain(output)


def test_installer_shows_little_logs_all_and_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        "WARNING: Location 'file:///mirror/torch/' is ignored: it is neither a file nor a directory.",
        "Collecting torch==2.14.1",
        "  Downloading torch-2.14.1-cp311-cp311-manylinux_2_28_x86_64.whl (907.8 MB)",
        "  Downloading yacs-0.1.8-py3-none-any.whl (14 kB)",
        "Installing collected packages: torch, yacs",
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    ]
    process = SimpleNamespace(stdout=iter(f"{line}\n" for line in lines), wait=lambda: 1)
    seen: list[dict[str, str]] = []

    def popen(command: list[str], *, env: dict[str, str], **options: object) -> SimpleNamespace:
        seen.append(env)
        return process

    monkeypatch.setattr(subprocess, "Popen", popen)
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example/simple")
    with pytest.raises(SetupError, match=r"pip install failed \(exit code 1\): the disk"):
        Installer(Path("python"), tmp_path / "setup.log")("install", "torch")
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "Downloading torch-2.14.1 (907.8 MB)",
        "Installing 2 packages",
        lines[-1],
    ]
    assert all(line in (tmp_path / "setup.log").read_text() for line in lines)
    assert seen[0]["PIP_INDEX_URL"] == "https://mirror.example/simple"
