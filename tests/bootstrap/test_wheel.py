"""The wheel holds every module and data file, and its tools run where the repository is not."""

import configparser
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from scenes.layouts import ScenesIndex

ROOT = Path(__file__).parents[2]


def _tracked(*suffixes: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if name.endswith(suffixes)]


def test_every_package_is_listed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options"]["packages"].split()
    folders = {str(Path(name).parent) for name in _tracked("/__init__.py")}
    found = {
        folder.replace("/", ".") for folder in folders if folder.split("/")[0] not in ("tests", "perf", "bootstrap")
    }
    assert set(listed) == found and listed == sorted(listed)


@pytest.mark.slow
def test_its_tools_run_elsewhere(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = {name.replace(".", "/") for name in setup["options"]["packages"].split()}
    wanted = {name for name in _tracked("") if str(Path(name).parent) in packages}
    assert wanted <= held, wanted - held
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    flags = ["--data", str(few_scenes.imagenet), "--out", "run", "--steps", "1", "--batch-size", "2", "--device", "cpu"]
    where = "import tools.pretrain as t; print(t.__file__)"
    said = subprocess.run(
        [sys.executable, "-c", where], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert said.stdout.startswith(str(tmp_path / "site"))
    subprocess.run([sys.executable, "-m", "tools.pretrain", "tiny", *flags], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "run" / "backbone.safetensors").is_file()


def test_hosted_checks_and_forms_are_yaml_and_call_what_is_there() -> None:
    files = sorted((ROOT / ".github").rglob("*.yml"))
    assert len(files) == 4
    read = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in files}
    jobs = read["checks.yml"]["jobs"]
    called = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if line[:1].isalpha()}
    assert all(line.split()[1] in targets for line in called if line.startswith("make "))
    ours = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert {line.split()[1] for line in ours} <= {line.split()[1] for line in called if line.startswith("make ")}
    for name in ("bug.yml", "weights.yml"):
        assert {"name", "description", "body"} <= read[name].keys()
        assert all(part["type"] in ("input", "textarea") for part in read[name]["body"])


WITHOUT = """
import importlib.util, sys
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "detectron2" else real(name, *rest)
sys.modules["mmcv"] = None
from tools import train_cls, train_det, train_seg
out = sys.argv[3]
assert train_det.main(["tiny", "--data", sys.argv[1], "--out", out]) == 1
assert train_seg.main(["tiny", "--data", sys.argv[2], "--out", out]) == 1
try:
    train_cls.main(["--help"])
except SystemExit as end:
    assert end.code == 0
"""


def test_without_the_hosts_the_rest_works(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", WITHOUT, str(few_scenes.coco), str(few_scenes.root / "ade20k")]
    done = subprocess.run([*words, str(tmp_path / "run")], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (
        "error: detection needs detectron2, which is not installed here. In the repository `make setup`" in done.stderr
    )
    assert "error: segmentation needs mmsegmentation, which cannot be imported here (" in done.stderr
    assert not (tmp_path / "run").exists()
