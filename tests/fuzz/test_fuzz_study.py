"""Study files of any damage: a study, or all that is wrong with it, each line with the file's name."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from benchmark.study.file import parse_study, study_text
from benchmark.study.prepare import prepare
from tools import run_benchmark

FILE = "mine.yaml"
VALUE = {
    "name": "mine",
    "data": "root",
    "seeds": [0, 1],
    "compare": {"claim": "mae", "against": "theirs", "pass_mark": 50},
    "budget": {"match": "none"},
    "differ": ["architecture.position"],
    "published": {"source": "a paper", "setting": "B", "rows": [{"variant": "x", "arm": "mae", "values": {"a": 1.5}}]},
    "scenes": {"drawn": {"seed": 3, "image_size": [64, 64]}},
    "tokenizers": {"codes": {"recipe": "tiny_dvae", "data": "drawn/imagenet", "steps": 3}},
    "arms": {
        "random": "random",
        "theirs": {"init": "w.pth", "init_source": "mae"},
        "mae": {"pretrain": {"recipe": "small", "data": "drawn/imagenet", "hours": 1.5, "steps": 10}},
    },
    "tasks": {
        "cars": {
            "tool": "train_seg", "recipe": "small", "data": "drawn/ade20k", "steps": 20,
            "search": {"base_lrs": ["1e-4", 2.5e-4], "hold_out": 0.2, "steps": 5},
        },
        "birds": {"tool": "train_cls", "recipe": "small", "data": "birds", "label_fractions": [0.1, 1], "hours": 0.5},
    },
    "cluster": {"partition": "gpu", "hours": 4, "cpus": 4},
}  # fmt: skip
TOOLS = {name: replace(tool, run=lambda *_: 0) for name, tool in run_benchmark.TOOLS.items()}


def test_structure(campaign: Any, damaged_value: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "birds").mkdir(parents=True)
    (root / "w.pth").touch()
    out, file = tmp_path / "out", tmp_path / FILE

    def read(text: str) -> None:
        file.write_text(text, encoding="utf-8")
        made = prepare(str(file), TOOLS, studies=tmp_path, out=out, root=root)
        made.refuse()
        for run in made.runs:
            assert run.out.resolve().is_relative_to(out.resolve()), run.out
            assert run.log.resolve().is_relative_to(out.resolve()), run.log
            assert run.job is not None and run.job.args.out == run.out
            assert run.command.count("--out") == 1 and run.command[run.command.index("--out") + 1] == str(run.out)
            assert len(run.log.name.encode()) <= 255
        assert parse_study(study_text(made.study), FILE, TOOLS) == made.study

    def case(rng: random.Random) -> str:
        return yaml.safe_dump(damaged_value(rng, VALUE), sort_keys=False)

    read(yaml.safe_dump(VALUE))
    campaign.run(case, read, cases=200, names=FILE)


def test_text(campaign: Any, damaged_bytes: Any) -> None:
    text = yaml.safe_dump(VALUE, sort_keys=False).encode()
    campaign.run(
        lambda rng: damaged_bytes(rng, text), lambda given: parse_study(given, FILE, TOOLS), cases=100, names=FILE
    )
