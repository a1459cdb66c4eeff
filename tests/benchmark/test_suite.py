"""The suite with fake tools, each in a forked process of its own: it skips, resumes, goes on, and says so."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmark.report.closing import closing_report
from benchmark.runner.progress import Estimate
from benchmark.runner.status import status_text
from engine.records.record import read_record, write_record
from engine.share import all_threads
from engine.training.stop import StopRequest
from files.locking import locked
from mae_transfer.tasks import TASKS
from tests.benchmark.fake_tools import SCENES, FakeTools, Passed, demo, weights
from tools import run_benchmark

PATIENCE = 90  # seconds that a machine at work may take to fork a run


def test_matrix_of_the_demo(tmp_path: Path) -> None:
    runs = demo(tmp_path, (0, 1))
    assert len(runs) == 2 + 2 + 3 * 3 * 2
    assert len({run.name for run in runs}) == len({run.out for run in runs}) == len(runs)
    by_name = {run.name: run for run in runs}
    for task in ("classification", "detection", "segmentation"):
        for seed in (0, 1):
            arms = {arm: by_name[f"{task}-{arm}-seed{seed}"] for arm in ("random", "supervised", "mae")}
            without = []
            for arm, run in arms.items():
                assert run.job is not None
                args, config = run.job.args, run.job.config
                assert args.out == run.out and config.run.seed == seed and args.arm == arm
                if arm != "random":
                    assert args.init == tmp_path / f"demo/pretrain-{arm}/backbone.safetensors"
                    assert run.needs == ("scenes-transfer", f"pretrain-{arm}")
                without.append((replace(args, out=Path(), init=None, arm=""), config))
            assert without[0] == without[1] == without[2]
    data = {run.data for run in runs if run.tool == "pretrain"}
    assert data == {tmp_path / "demo/scenes-pretrain/imagenet"}
    drawn = [run.job.config for run in runs if run.tool == "make_scenes" and run.job is not None]
    # no image of pre-training is an image of transfer, and no class either
    assert [(scenes.world, scenes.seed) for scenes in drawn] == [("indoor", 0), ("outdoor", 1)]
    labels, mae = (by_name[f"pretrain-{arm}"].job for arm in ("supervised", "mae"))
    assert labels is not None and mae is not None
    assert (labels.config.run.batch_size, labels.config.run.schedule) == (
        mae.config.run.batch_size,
        mae.config.run.schedule,
    )
    # as many steps as cost the same
    assert (labels.args.steps, mae.args.steps) == (641, 1800)


def test_a_whole_pass_then_nothing_is_repeated(tools: FakeTools, tmp_path: Path) -> None:
    runs, out = demo(tmp_path), tmp_path / "demo"
    first = Passed(tools, runs, out)
    assert first.code == 0 and {outcome.status for outcome in first.outcomes} == {"completed"}
    assert tools.called() == [run.name for run in runs]
    assert "working on pretrain-mae" in (out / "logs/pretrain-mae.log").read_text()
    assert "working on" not in first.screen.splitlines()[0]
    assert (
        "[1/13] scenes-pretrain starts; about " in first.screen
        and "[13/13] segmentation-mae-seed0: completed" in first.screen
    )
    report = closing_report(out, first.outcomes, TASKS, seconds=75)
    assert str(out / "classification-mae-seed0/pictures/predictions.png") in report
    assert f"{out}/detection-random-seed0/pictures/ (2 pictures)" in report
    assert all(str(out / f"table.{suffix}") in report for suffix in ("md", "csv", "tex"))
    assert report.endswith("13 runs completed now, 0 were recorded already, 0 without a result; 1:15 in all.")

    second = Passed(tools, runs, out)
    assert second.code == 0 and tools.called() == SCENES
    assert {outcome.status for outcome in second.outcomes[2:]} == {"recorded"}
    third = Passed(tools, demo(tmp_path, (0, 3)), out)
    assert third.code == 0 and len(tools.called()) == 2 + 9


def test_old_scenes_teach_no_time(tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[str] = []
    monkeypatch.setattr(Estimate, "timed", lambda _, run, seconds: timed.append(run.name))
    runs, out = demo(tmp_path)[:3], tmp_path / "demo"
    Passed(tools, runs, out)
    assert timed == [*SCENES, "pretrain-supervised"]
    timed.clear()
    for name in SCENES:
        (out / name / "images").touch()
    (out / "pretrain-supervised/record.json").unlink()  # killed: its scenes are made in no time, and it resumes
    assert Passed(tools, runs, out).code == 0 and timed == []


def test_goes_on_when_runs_fail_or_die(tools: FakeTools, tmp_path: Path) -> None:
    def fails(_: StopRequest) -> int:
        print("error: a box outside the image")
        print("some last words")
        return 1

    def dies(_: StopRequest) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def raises(_: StopRequest) -> int:
        raise RuntimeError("no such operator")

    tools.behaviour = {
        "detection-mae-seed0": fails,
        "pretrain-supervised": dies,
        "segmentation-random-seed0": raises,
        "classification-random-seed0": lambda _: 0,
    }
    runs, out = demo(tmp_path), tmp_path / "demo"
    first = Passed(tools, runs, out)
    assert first.code == 1 and not first.stopped
    assert first.of("detection-mae-seed0").error == "a box outside the image"
    assert first.of("pretrain-supervised").error == "killed by SIGKILL; the system does so when memory runs out"
    assert first.of("segmentation-random-seed0").error == "RuntimeError: no such operator"
    assert first.of("classification-random-seed0").error == "working on classification-random-seed0"
    for task in ("classification", "detection", "segmentation"):
        not_run = first.of(f"{task}-supervised-seed0")
        assert (not_run.status, not_run.error) == ("not run", "needs pretrain-supervised")
        assert not not_run.run.out.exists()
    assert first.of("segmentation-mae-seed0").status == "completed"
    report = closing_report(out, first.outcomes, TASKS, seconds=1)
    assert f"detection-mae-seed0: failed: a box outside the image (log: {out}/logs/detection-mae-seed0.log)" in report
    assert "detection-supervised-seed0: not run: needs pretrain-supervised\n" in report
    assert "6 runs completed now, 0 were recorded already, 7 without a result" in report

    tools.behaviour = {}
    tools.called()
    second = Passed(tools, runs, out)
    assert second.code == 0
    assert tools.called() == [
        *SCENES,
        "pretrain-supervised resumed",
        "classification-random-seed0 resumed",
        "classification-supervised-seed0",
        "detection-supervised-seed0",
        "detection-mae-seed0 resumed",
        "segmentation-random-seed0 resumed",
        "segmentation-supervised-seed0",
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_passed_on_once_and_the_same_command_continues(
    number: signal.Signals, tools: FakeTools, tmp_path: Path
) -> None:
    def is_interrupted(stop: StopRequest) -> None:
        assert os.getpgid(0) == os.getpid()  # so that a terminal's Ctrl-C reaches the suite alone
        os.kill(os.getppid(), number)
        deadline = time.monotonic() + PATIENCE
        while not stop and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)  # a second signal would raise KeyboardInterrupt here

    tools.behaviour = {"pretrain-mae": is_interrupted}
    runs, out = demo(tmp_path), tmp_path / "demo"
    before = signal.getsignal(signal.SIGINT)
    first = Passed(tools, runs, out)
    assert signal.getsignal(signal.SIGINT) is before
    assert first.code == 130 and first.stopped
    assert first.of("pretrain-mae").error == f"interrupted by {number.name}"
    assert read_record(out / "pretrain-mae").status == "interrupted"
    assert {outcome.error for outcome in first.outcomes[4:]} == {"stopped before"}
    assert tools.called() == [*SCENES, "pretrain-supervised", "pretrain-mae"]
    report = closing_report(out, first.outcomes, TASKS, seconds=1)
    assert f"pretrain-mae: interrupted: interrupted by {number.name} (log: " in report
    assert "  9 more: not run: stopped before\n" in report

    tools.behaviour = {}
    assert Passed(tools, runs, out).code == 0
    assert tools.called()[:3] == [*SCENES, "pretrain-mae resumed"]


def until(path: Path) -> None:
    """Wait for a file, at most PATIENCE seconds."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was never written"
        time.sleep(0.01)


def test_runs_side_by_side(tools: FakeTools, tmp_path: Path) -> None:
    def meets(mine: str, other: str) -> Callable[[StopRequest], None]:
        def act(_: StopRequest) -> None:  # comes back only where both are at work
            (tmp_path / mine).write_text(os.environ["OMP_NUM_THREADS"])
            until(tmp_path / other)

        return act

    def fails(_: StopRequest) -> int:
        return 1

    tools.behaviour = {
        "pretrain-supervised": meets("supervised", "mae"),
        "pretrain-mae": meets("mae", "supervised"),
        "classification-random-seed0": fails,
    }
    runs, out = demo(tmp_path), tmp_path / "demo"
    passed = Passed(tools, runs, out, at_once=2)
    assert [outcome.run.name for outcome in passed.outcomes] == [run.name for run in runs]
    assert [outcome.run.name for outcome in passed.outcomes if not outcome.good] == ["classification-random-seed0"]
    called = tools.called()
    assert sorted(called) == sorted(run.name for run in runs)
    at = called.index
    for run in (
        runs
    ):  # each waited for what it builds on, and for no more: one folder of scenes may come long before the other
        assert all(at(run.name) > at(need) for need in run.needs), run.name
    assert (tmp_path / "mae").read_text() == str(max(1, all_threads() // 2))


def test_a_stop_reaches_all_runs_at_work(tools: FakeTools, tmp_path: Path) -> None:
    def works(mine: str, other: str, *, asks: bool) -> Callable[[StopRequest], None]:
        def act(stop: StopRequest) -> None:
            (tmp_path / mine).touch()
            until(tmp_path / other)
            if asks:
                os.kill(os.getppid(), signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while not stop and time.monotonic() < deadline:
                time.sleep(0.01)

        return act

    tools.behaviour = {
        "pretrain-supervised": works("supervised", "mae", asks=False),
        "pretrain-mae": works("mae", "supervised", asks=True),
    }
    runs, out = demo(tmp_path), tmp_path / "demo"
    passed = Passed(tools, runs, out, at_once=2)
    assert passed.code == 130
    for arm in ("supervised", "mae"):
        assert passed.of(f"pretrain-{arm}").error == "interrupted by SIGTERM"
        assert read_record(out / f"pretrain-{arm}").status == "interrupted"
    assert {*tools.called()[-2:]} == {"pretrain-supervised", "pretrain-mae"}, "nothing starts after the request"
    after = [outcome for outcome in passed.outcomes if {"pretrain-supervised", "pretrain-mae"} & {*outcome.run.needs}]
    assert len(after) == 6 and {outcome.error for outcome in after} == {"stopped before"}


def test_finished_runs_of_other_settings_are_not_taken(tools: FakeTools, tmp_path: Path) -> None:
    runs, out = demo(tmp_path), tmp_path / "demo"
    tools.digests = False  # as records of before
    Passed(tools, runs, out)
    (out / "pretrain-mae/backbone.safetensors").write_bytes(weights("weights of another pre-training"))
    odd = [
        replace(run, job=replace(run.job, record=lambda *_, kept=run.settings: {**(kept or {}), "recipe": "other"}))
        if run.name == "segmentation-random-seed0" and run.job is not None
        else run
        for run in runs
    ]
    again = Passed(tools, odd, out)
    assert again.code == 1
    changed = again.of("segmentation-random-seed0").error or ""
    assert "holds a finished run of other settings (recipe: None -> other)" in changed
    assert "Remove that folder to run it anew, or give another --out." in changed
    for task in ("classification", "detection", "segmentation"):
        assert "weights_sha256: " in (again.of(f"{task}-mae-seed0").error or "")
        assert again.of(f"{task}-supervised-seed0").status == "recorded"


def test_a_pretraining_without_its_weights_is_run_again_where_a_run_needs_them(
    tools: FakeTools, tmp_path: Path
) -> None:
    runs, out = demo(tmp_path), tmp_path / "demo"
    Passed(tools, runs, out)
    tools.called()
    (out / "pretrain-mae/backbone.safetensors").unlink()
    (out / "detection-mae-seed0/record.json").unlink()
    file = out / "pretrain-supervised/backbone.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    again = Passed(tools, runs, out)
    assert again.code == 0  # the same weights came out, so the transfers stay
    called = ["pretrain-supervised resumed", "pretrain-mae resumed", "detection-mae-seed0"]
    assert tools.called() == [*SCENES, *called]
    assert again.of("detection-supervised-seed0").status == "recorded"


def test_records_are_enough_where_no_run_needs_the_weights(tools: FakeTools, tmp_path: Path) -> None:
    """A study's folder may be carried elsewhere without them."""
    runs, out = demo(tmp_path), tmp_path / "demo"
    Passed(tools, runs, out)
    tools.called()
    for file in out.glob("pretrain-*/*.safetensors"):
        file.unlink()
    again = Passed(tools, runs, out)
    assert again.code == 0 and tools.called() == SCENES
    assert {outcome.status for outcome in again.outcomes[2:]} == {"recorded"}
    assert "recorded already, skipped; its weights are gone, and no run that is left needs them" in again.screen
    assert "completed; its weights are gone" in status_text("demo", runs)
    record = read_record(out / "pretrain-mae")
    write_record(out / "pretrain-mae", replace(record, files_sha256={"backbone.safetensors": "0" * 64}))
    # the transfers started from other weights than it says
    assert "weights_sha256: " in (Passed(tools, runs, out).of("detection-mae-seed0").error or "")


def test_two_suites_in_one_folder_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demo"
    with locked(out):
        assert run_benchmark.main(["demo", "--out", str(out)]) == 1
    assert f"{out}: is being written to by process {os.getpid()} on " in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == [".lock"]


def test_a_run_that_a_killed_suite_left_is_waited_for(tools: FakeTools, tmp_path: Path) -> None:
    with locked(tmp_path / "demo/logs", shared=True), pytest.raises(ValueError, match="left is still saving; wait"):
        Passed(tools, demo(tmp_path), tmp_path / "demo")


def test_no_run_no_table(tools: FakeTools, tmp_path: Path) -> None:
    tools.behaviour = {name: lambda _: 1 for name in SCENES}
    passed = Passed(tools, demo(tmp_path), tmp_path / "demo")
    assert passed.code == 1 and passed.of("detection-random-seed0").error == "needs scenes-transfer"
    report = closing_report(tmp_path / "demo", passed.outcomes, TASKS, seconds=1)
    assert report.startswith("No run has completed") and "13 without a result" in report


def test_mistakes_are_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_benchmark.main(["demmo", "--out", str(tmp_path / "x")]) == 1
    assert "error: no study is called 'demmo'; there are: ablation_mask_ratio, " in capsys.readouterr().err
    assert run_benchmark.main(["demo", "--seeds", "1", "1", "--out", str(tmp_path / "x")]) == 1
    assert "error: --seeds 1 1: give one or more different seeds" in capsys.readouterr().err
    assert run_benchmark.main(["demo", "--at-once", "0", "--out", str(tmp_path / "x")]) == 1
    assert "error: --at-once 0: give 1 or more runs side by side." in capsys.readouterr().err
    assert run_benchmark.main(["demo", "--at-once", "2", "--launcher", "slurm", "--out", str(tmp_path / "x")]) == 1
    assert "error: --at-once is for --launcher local; `cluster: {at_once: N}`" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
