"""Rows that start programs of the project: its tests, its tools on embedded scenes, a study."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from perf.gpu.row import Ask, NotRun

ROOT = Path(__file__).resolve().parents[2]
STUDY = """\
name: kit
seeds: [0]
scenes:
  scenes: {{seed: 0, classify_train: 24, classify_val: 24, classify_test: 12, dense_train: 8, dense_val: 4,
            dense_test: 1}}
compare: {{claim: mae, against: random}}
arms:
  random: random
  mae: {{pretrain: {{recipe: tiny, data: scenes/imagenet, steps: 2, batch_size: 8, warmup: 1, device: {device}}}}}
tasks:
  classification:
    {{tool: train_cls, recipe: tiny, data: scenes/imagenet, steps: 2, batch_size: 8, warmup: 1, device: {device}}}
"""


def tests(ask: Ask) -> None:
    """Say what `pytest -m gpu` says, of the files that have such tests: others may need what is not installed here."""
    if importlib.util.find_spec("pytest") is None:
        raise NotRun("pytest missing")
    files = gpu_tests(ROOT / "tests")
    several = ["--numprocesses", "4", "--dist", "loadfile"] if importlib.util.find_spec("xdist") else []
    words = ["-m", "pytest", "-m", "gpu", "-q", "--durations", "5", *several, *map(str, files)]
    lines = []
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:  # as they come: what there is when the time is over
            print(line, end="", flush=True)
            lines.append(line.strip())
    for line in lines:
        if line.startswith(("FAILED", "ERROR", "SKIPPED")):
            ask.say(line.split()[0].lower(), line.partition(" ")[2][:300])
    summary, counts = counted(lines)
    if not counts:
        raise NotRun(f"pytest ended with code {process.returncode} and no summary; rows/tests.txt has its output")
    ask.say("pytest -m gpu", summary, **counts)
    if process.returncode != 0:
        raise RuntimeError(f"pytest ended with code {process.returncode}")


def counted(lines: Sequence[str]) -> tuple[str, dict[str, int]]:
    """Return pytest's last line and its numbers by what they are of; both empty where it has none."""
    for line in reversed(lines):
        counts = {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)", line)}
        if counts and " in " in line:
            return line.strip(" ="), counts
    return "", {}


def gpu_tests(folder: Path) -> list[Path]:
    """Return the files with tests for a GPU: those of gpu/, and those that mark one or ask for the devices."""
    files = sorted(folder.rglob("test_*.py"))
    return [p for p in files if p.parent.name == "gpu" or re.search(r"mark\.gpu|DEVICES", p.read_text("utf-8"))]


def loader(ask: Ask) -> None:
    """Say images/s and the share of waiting of pre-training runs, from their records."""
    from engine.records.record import read_record

    side, images = (64, 64) if ask.small else (256, 1024)
    data = ask.folder / "scenes"
    counts = ["--classify-train", f"{images}", "--classify-val", "24", "--classify-test", "12"]
    few = ["--dense-train", "1", "--dense-val", "1", "--dense-test", "1"]
    _tool("make_scenes", ["--out", str(data), "--image-size", f"{side}", f"{side}", *counts, *few])
    recipe, steps = ("tiny", ["--steps", "3", "--batch-size", "8"]) if ask.small else ("mae_base", ["--steps", "12"])
    if not ask.small:
        steps += ["--batch-size", "256", "--accumulate", "1", "--base-lr", "1e-4", "--save-every", "12"]
    for workers in (2,) if ask.small else (0, 4, 8, 16):
        out = ask.folder / f"workers{workers}"
        flags = ["--data", str(data / "imagenet"), "--out", str(out), "--workers", str(workers), "--warmup", "1"]
        _tool("pretrain", [recipe, *flags, *steps, "--device", ask.device])
        cost = read_record(out).cost
        shutil.rmtree(out)  # a checkpoint of ViT-B is 1.3 GB
        rate, waited = cost.images_per_second or 0.0, cost.data_wait_share or 0.0
        told = f"{rate:,.0f} images/s, {waited:.0%} of the time waiting for data"
        ask.say(
            f"pretrain {recipe}, {workers} workers, {os.cpu_count()} cores", told, images_per_second=rate, waited=waited
        )


def study(ask: Ask) -> None:
    """Say whether a study of two arms came to its end, its runs forked from a process that imports all."""
    file = ask.folder / "study.yaml"
    file.write_text(STUDY.format(device=ask.device), encoding="utf-8")
    out = ask.folder / "study"
    said = _tool("run_benchmark", [str(file), "--out", str(out)])
    ask.say("a study of two arms, runs forked", said.strip().splitlines()[-1])


def _tool(name: str, flags: list[str]) -> str:
    """Return what a tool prints. Raises RuntimeError with its last line where it fails."""
    command = [sys.executable, "-W", "ignore", str(ROOT / "tools" / f"{name}.py"), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise RuntimeError(f"tools/{name}.py ended with code {done.returncode}: {last}")
    return done.stdout
