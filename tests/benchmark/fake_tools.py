"""Tools that write a record and what a suite asks of them, each in a forked process of its own."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.runner.attempt import Outcome
from benchmark.runner.scheduler import Suite, exit_code
from benchmark.study.prepare import prepare
from benchmark.study.run import Run
from benchmark.study.tool import Tool
from engine.records.record import RunRecord, write_record
from engine.training.stop import StopRequest, stop_requests
from tools import run_benchmark
from tools.run_benchmark import TOOLS

Record = Callable[..., RunRecord]


def weights(name: str) -> bytes:
    header = f'{{"__metadata__": {{"name": "{name}"}}}}'.encode()
    return len(header).to_bytes(8, "little") + header


SCENES = ["scenes-pretrain", "scenes-transfer"]


class FakeTools:
    """Tools that write a record and a line of what they were called with; `behaviour` says who misbehaves and how."""

    def __init__(self, record: Record, calls: Path) -> None:
        self.record = record
        self.calls = calls
        self.digests = True
        self.behaviour: dict[str, Callable[[StopRequest], int | None]] = {}
        self.suite_tools = {
            name: replace(
                tool,
                run=partial(self.train, tool.settings),
                preload=lambda: None,
            )
            for name, tool in TOOLS.items()
        }

    def train(self, settings: Callable[[Any, Any], dict[str, Any]] | None, args: Any, config: Any) -> int:
        out = args.out
        out.mkdir(parents=True, exist_ok=True)
        with self.calls.open("a") as file:
            file.write(f"{out.name}{' resumed' if getattr(args, 'resume', False) else ''}\n")
        print(f"working on {out.name}")
        init, task, arm = getattr(args, "init", None), out.name.split("-")[0], "random"
        sha = hashlib.sha256(Path(init).read_bytes()).hexdigest() if init else None
        if init:
            arm = Path(init).parent.name.removeprefix("pretrain-")
        outputs: tuple[str, ...] = ()
        pictures = ("pictures/a.png", "pictures/b.png") if task == "detection" else ("pictures/predictions.png",)
        metrics = {"top1": 90.0, "box_ap": 20.0, "miou": 30.0}
        if task == "pretrain":
            task, outputs = out.name.removeprefix("pretrain-"), ("backbone.safetensors",)
        record = self.record(
            task, arm, config.run.seed if hasattr(config, "run") else config.seed, metrics,
            data=None if not hasattr(args, "data") else str(args.data),
            config=json.loads(json.dumps(settings(args, config))) if settings else {},
            weights_sha256=sha, outputs=outputs, pictures=pictures,
        )  # fmt: skip
        if (act := self.behaviour.get(out.name)) is not None:
            write_record(out, replace(record, status="running", steps=3))
            with stop_requests() as stop:
                code = act(stop)
                if stop:
                    write_record(out, replace(record, status="interrupted", error=stop.signal_name, steps=3))
                    return 130
            if code is not None:
                return code
        if outputs:
            content = weights(f"weights of {arm}")
            (out / outputs[0]).write_bytes(content)
            if self.digests:
                record = replace(record, files_sha256={outputs[0]: hashlib.sha256(content).hexdigest()})
        if settings is not None:
            write_record(out, record)
        return 0

    def called(self) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        self.calls.unlink(missing_ok=True)
        return lines


def trained_by(train: Callable[[Any, Any, dict[str, Any]], int], make: Callable[[Any, Any], int]) -> dict[str, Tool]:
    """The suite's tools, of which those with a record run `train`, with the settings to record, the others `make`."""

    def with_settings(tool: Tool) -> Callable[[Any, Any], int]:
        return lambda args, config: train(args, config, json.loads(json.dumps(tool.settings(args, config))))

    return {
        name: replace(tool, run=make if tool.settings is None else with_settings(tool)) for name, tool in TOOLS.items()
    }


class Passed:
    """One pass of the suite."""

    def __init__(self, tools: FakeTools, runs: Sequence[Run], out: Path, *, at_once: int = 1) -> None:
        screen = io.StringIO()
        suite = Suite(tools.suite_tools, Console(file=screen, width=200), at_once=at_once)
        self.outcomes = suite.carry_out(runs)
        self.code = exit_code(self.outcomes, stopped=suite.stopped)
        self.stopped = suite.stopped
        self.screen = screen.getvalue()

    def of(self, name: str) -> Outcome:
        return next(outcome for outcome in self.outcomes if outcome.run.name == name)


def demo(tmp_path: Path, seeds: tuple[int, ...] = (0,)) -> tuple[Run, ...]:
    return prepare("demo", TOOLS, studies=run_benchmark.STUDIES, out=tmp_path / "demo", seeds=seeds).runs
