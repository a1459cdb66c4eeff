"""From a study file to runs: the matrix, what is refused before anything runs, the search, dry runs, states, arrays."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmark.runner.scheduler import Suite
from benchmark.runner.status import dry_run_text, outlooks, state_of, status_text
from benchmark.study.budget import Length, flops_lengths, unequal_samples
from benchmark.study.prepare import Prepared, prepare
from benchmark.study.run import Run
from benchmark.study.tool import Tool
from engine.records.record import RunRecord, read_record, write_record
from files.digest import file_sha256
from tests.benchmark.fake_tools import trained_by
from tools import run_benchmark
from tools.run_benchmark import TOOLS

Record = Callable[..., RunRecord]
SMALL = """
name: mine
data: root
seeds: [0, 1]
arms:
  random: random
  theirs: {init: w.pth, init_source: mae}
  mae: {pretrain: {recipe: tiny, data: photos, steps: 10, hours: 2}}
tasks:
  cars:
    {tool: train_seg, recipe: tiny, data: cars, steps: 20, search: {base_lrs: [1e-4, 2e-4], hold_out: 0.2, steps: 5}}
  birds: {tool: train_cls, recipe: tiny, data: birds, label_fractions: [0.1, 1], hours: 0.5}
compare: {against: theirs}
"""


def small_study(tmp_path: Path) -> Callable[..., Prepared]:
    """Return what prepares a study whose data is there."""
    root = tmp_path / "root"
    for name in ("photos", "cars", "birds"):
        (root / name).mkdir(parents=True)
    (root / "w.pth").write_text("weights")

    def make(text: str = SMALL, tools: dict[str, Tool] = TOOLS, seeds: tuple[int, ...] | None = None) -> Prepared:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        return prepare(str(file), tools, studies=tmp_path, out=tmp_path / "out", root=root, seeds=seeds)

    return make


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Prepared]:
    return small_study(tmp_path)


def named(made: Prepared) -> dict[str, Run]:
    return {run.name: run for run in made.runs}


def test_matrix_of_a_small_study(made: Callable[..., Prepared], tmp_path: Path) -> None:
    runs = made().runs
    root, out = tmp_path / "root", tmp_path / "out"
    arms = ("random", "theirs", "mae")
    assert [run.name for run in runs] == [
        "hold-out-cars",
        "pretrain-mae",
        *(f"search-cars-{arm}-lr{rate}" for arm in arms for rate in ("0.0001", "0.0002")),
        *(f"{cell}-{arm}-seed{s}" for s in (0, 1) for cell in ("cars", "birds_10pct", "birds") for arm in arms),
    ]
    by_name = {run.name: run for run in runs}
    assert by_name["pretrain-mae"].command == (
        "tiny", "--data", f"{root}/photos", "--out", f"{out}/pretrain-mae", "--steps", "10", "--arm", "mae",
    )  # fmt: skip
    search = by_name["search-cars-theirs-lr0.0002"]
    assert search.command == (
        "tiny", "--data", f"{out}/held-out/cars", "--out", f"{out}/search/cars-theirs/lr0.0002", "--init",
        f"{root}/w.pth", "--init-source", "mae", "--steps", "5", "--arm", "theirs", "--base-lr", "0.0002", "--seed",
        "100",
    )  # fmt: skip
    assert search.needs == ("hold-out-cars",)
    birds = by_name["birds_10pct-mae-seed1"]
    assert birds.command == (
        "tiny", "--data", f"{root}/birds", "--out", f"{out}/birds_10pct-mae-seed1", "--init",
        f"{out}/pretrain-mae/backbone.safetensors", "--arm", "mae", "--label-fraction", "0.1", "--seed", "1",
    )  # fmt: skip
    assert birds.needs == ("pretrain-mae",) and birds.search is None and birds.seconds == 1800
    assert "--steps" not in named(made(SMALL.replace("steps: 5", "epochs: 5")))["search-cars-mae-lr0.0001"].command
    cars = by_name["cars-random-seed0"]
    assert cars.search is not None and [rate for rate, _ in cars.search.grid] == [1e-4, 2e-4]
    assert "--base-lr" not in cars.command  # the search chooses it
    assert by_name["hold-out-cars"].command == (
        "train_seg", "--data", f"{root}/cars", "--out", f"{out}/held-out/cars", "--share", "0.2",
    )  # fmt: skip


def test_plan_of_a_small_study(made: Callable[..., Prepared], tmp_path: Path) -> None:
    made().write_plan()
    plan = json.loads((tmp_path / "out/study.json").read_text())
    assert plan["arms"] == ["random", "theirs", "mae"] and (plan["claim"], plan["against"]) == ("mae", "theirs")
    by_folder = {run["folder"]: run for run in plan["runs"]}
    assert by_folder["cars-mae-seed0"]["choice"] == "search/cars-mae"
    assert by_folder["birds_10pct-mae-seed0"]["task"] == "birds"
    again = prepare(str(tmp_path / "out/study.yaml"), TOOLS, studies=tmp_path, out=tmp_path / "out")
    assert again.study == made().study


def test_tokenizers_are_trained_before_the_arms_that_name_them(made: Callable[..., Prepared], tmp_path: Path) -> None:
    beit = "{recipe: tiny_beit, tokenizer: dvae/tokenizer.safetensors, data: photos, steps: 10}"
    text = SMALL.replace("arms:", "tokenizers: {dvae: {recipe: tiny_dvae, data: photos, steps: 3}}\narms:")
    text = text.replace("tasks:", f"  beit: {{pretrain: {beit}}}\ntasks:")
    study = made(text.replace("compare:", "differ: [architecture]\ncompare:"))
    study.refuse()
    runs, root, out = named(study), tmp_path / "root", tmp_path / "out"
    assert [run.phase for run in study.runs][:4] == ["data", "tokenizer", "pretrain", "pretrain"]
    assert runs["dvae"].command == (
        "tiny_dvae", "--data", f"{root}/photos", "--out", f"{out}/dvae", "--steps", "3",
    )  # fmt: skip
    argv = runs["pretrain-beit"].command
    assert argv[argv.index("--tokenizer") + 1] == f"{out}/dvae/tokenizer.safetensors"
    assert runs["pretrain-beit"].needs == ("dvae",) and runs["pretrain-mae"].needs == ()
    with pytest.raises(ValueError, match=r"tokenizers\.dvae\.recipe: no recipe is called 'tiny_vae'"):
        made(text.replace("tiny_dvae", "tiny_vae")).refuse()
    with pytest.raises(ValueError, match=r"arms\.beit\.pretrain: .*root/vae/tokenizer\.safetensors is not there"):
        made(text.replace("dvae/tokenizer", "vae/tokenizer")).refuse()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("init: w.pth", "init: v.pth", r"tasks\.cars\.search: .*root/v\.pth is not there; mend the path, or give"),
        ("data: photos", "data: fotos", r"arms\.mae\.pretrain: .*root/fotos is not there"),
        ("tiny, data: birds", "tiny, drop_path: 7, data: birds", r"tasks\.birds: .*drop_path"),
        ("steps: 20", "steps: 20, epochs: 2", r"tasks\.cars: --steps and --epochs were both given"),
        ("tiny, data: cars", "tiny, batch_size: 0, data: cars", r"tasks\.cars: .*batch_size"),
        ("hold_out: 0.2, ", "", r"tasks\.cars\.search: it would choose on the images that the results are from"),
        ("hold_out: 0.2", "hold_out: 0.2, val_split: x", r"hold_out and val_split both name images; give one"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(
    made: Callable[..., Prepared], tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SMALL
    with pytest.raises(ValueError, match=rf"mine\.yaml: nothing was run, since\n(.*\n)*.*{message}"):
        made(SMALL.replace(old, new)).refuse()
    assert not (tmp_path / "out").exists()


OTHER = "  labels: {pretrain: {recipe: tiny_supervised, data: photos, steps: 10}}\ntasks:"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps: 10}}\ntasks", "steps: 12}}\ntasks"), r"mae 640 images \(10 steps of 64\); labels 768 images"),
        (("photos, steps: 10}}\ntasks", "birds, steps: 10}}\ntasks"), "pre-trainings are on different images: mae "),
        (("compare:", "budget: {match: flops}\ncompare:"), "the MACs per image of mae, labels are not known"),
        (("steps: 10}}\ntasks", "epochs: 2}}\ntasks"), r"mae 640 images .*; labels 2 epochs"),
    ],
)  # fmt: skip
def test_budgets_that_do_not_match_are_refused(
    made: Callable[..., Prepared], change: tuple[str, str], message: str
) -> None:
    text = SMALL.replace("tasks:", OTHER)
    made(text).refuse()  # as many images
    assert change[0] in text
    with pytest.raises(ValueError, match=message):
        made(text.replace(*change)).refuse()
    unmatched = text.replace(*change).replace("budget: {match: flops}\n", "")
    made(unmatched.replace("compare:", "budget: {match: none}\ncompare:")).refuse()


def test_lengths_that_cost_the_same() -> None:
    mae = Length(arm="mae", value=1000, unit="steps", batch_size=64)
    labels = Length(arm="labels", value=5, unit="steps", batch_size=32)
    assert unequal_samples([mae, replace(mae, arm="x", value=2000, batch_size=32)]) is None
    found = flops_lengths([mae, labels], {"mae": 200.0, "labels": 500.0}, "mae")
    assert found == {"labels": {"steps": 800}}  # 1000 * 64 * 200 / (32 * 500)
    with pytest.raises(ValueError, match="lengths are in epochs and steps; give all in steps"):
        flops_lengths([mae, replace(labels, unit="epochs")], {"mae": 1.0, "labels": 1.0}, "mae")


def test_flops_scale_the_pre_training(made: Callable[..., Prepared]) -> None:
    text = SMALL.replace("tasks:", OTHER).replace("compare:", "budget: {match: flops}\ncompare:")
    text = text.replace("steps: 10, hours: 2", "steps: 10, flops_per_image: 100")
    text = text.replace("steps: 10}}\ntasks", "steps: 10, flops_per_image: 400}}\ntasks")
    runs = named(made(text))
    assert runs["pretrain-mae"].job.args.steps == 10
    assert runs["pretrain-labels"].job.args.steps == 2  # 10 * 100 / 400 = 2.5, to even


def half_done(made: Prepared, record: Record) -> dict[str, Run]:
    """Leave records of some runs."""
    runs = named(made)
    runs["hold-out-cars"].out.mkdir(parents=True)
    done = record(
        "mae", "random", 0, {"val_loss": 0.4321}, outputs=("backbone.safetensors",), primary_metric="val_loss",
        config=json.loads(json.dumps(runs["pretrain-mae"].settings)), data=str(runs["pretrain-mae"].data),
    )  # fmt: skip
    weights = runs["pretrain-mae"].out / "backbone.safetensors"
    weights.parent.mkdir()
    weights.write_bytes((2).to_bytes(8, "little") + b"{}")
    write_record(weights.parent, replace(done, cost=replace(done.cost, total_seconds=600.0)))
    for name, changes in {
        "search-cars-random-lr0.0001": {"weights_sha256": None},
        "search-cars-random-lr0.0002": {"weights_sha256": None, "status": "failed", "error": "NonFiniteError: x"},
        "cars-random-seed0": {"status": "interrupted", "error": "SIGTERM", "steps": 7},
        "cars-mae-seed0": {"status": "failed", "error": "ValueError: bad", "steps": 3},
        "cars-theirs-seed0": {"status": "running", "steps": 4},
    }.items():
        own = {"config": json.loads(json.dumps(runs[name].settings)), "data": str(runs[name].data)}
        write_record(runs[name].out, record("segmentation", "mae", 0, {"miou": 12.345}, **own, **changes))
    runs["birds-mae-seed0"].log.parent.mkdir(parents=True)
    runs["birds-mae-seed0"].log.write_text("error: x")
    return runs


def test_states_from_records_alone(made: Callable[..., Prepared], record: Record) -> None:
    study = made()
    runs = half_done(study, record)
    states = {name: state_of(run, [*runs.values()]) for name, run in runs.items()}
    assert states["hold-out-cars"] == "completed" and states["pretrain-mae"] == "completed: val_loss 0.4321"
    assert states["search-cars-random-lr0.0001"] == "completed: miou 12.35"
    assert states["search-cars-random-lr0.0002"] == "completed: the loss became infinite at this learning rate"
    assert states["cars-random-seed0"] == "interrupted at step 7 of 100: SIGTERM"
    assert states["cars-mae-seed0"] == "failed at step 3 of 100: ValueError: bad"
    assert states["cars-theirs-seed0"] == "killed or still running at step 4 of 100"
    assert states["birds-mae-seed0"].startswith("failed before its first step, see ")
    assert states["birds-mae-seed1"] == "not started"
    text = status_text("mine", study.runs)
    assert text.startswith(
        "Study mine: 26 runs: 18 not started, 4 completed, 2 failed, 1 interrupted, 1 killed or still"
    )


def test_dry_run_says_hours_and_disk(made: Callable[..., Prepared], record: Record, tmp_path: Path) -> None:
    study = made()
    half_done(study, record)
    found = {item.what: item for item in outlooks(study.runs)}
    pretraining = found["mae"]
    assert (pretraining.seconds, pretraining.source, pretraining.disk_source) == (600.0, "recorded", "measured")
    assert (found["birds, 3 arms"].seconds, found["birds, 3 arms"].source) == (1800.0, "stated")
    cars = [item for item in outlooks(study.runs) if item.what == "cars, 3 arms"]
    assert [(item.phase, item.runs, item.done) for item in cars] == [("search", 6, 2), ("transfer", 6, 0)]
    # two checkpoints of weights and moments of a ViT of 6 blocks, 192 wide
    assert cars[1].disk_bytes == 2 * 12 * 12 * 6 * 192**2 and cars[1].disk_source == "at least"
    text = dry_run_text("mine", study.runs, tmp_path / "out")
    assert "Study mine: 26 runs, 4 of them done" in text
    assert (
        "unknown of 6 runs (the file may state `hours` of a task or a pre-training), about 6:04:40 for the others"
        in text
    )
    assert "Learning rates of cars, searched for every arm alike with seed 100: 0.0001, 0.0002." in text


def test_dry_run_of_the_tool_runs_nothing(
    made: Callable[..., Prepared], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made()
    command = [str(tmp_path / "mine.yaml"), "--data", str(tmp_path / "root"), "--out", str(tmp_path / "out")]
    assert run_benchmark.main([*command, "--dry-run"]) == 0
    assert "26 runs, 0 of them done" in capsys.readouterr().out
    assert run_benchmark.main([*command, "--status"]) == 0
    assert "26 not started" in capsys.readouterr().out
    assert run_benchmark.main([*command, "--seeds", "100"]) == 1
    assert "the search of cars takes 100" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def fake_tools(record: Record, values: dict[str, float]) -> dict[str, Tool]:
    """Tools that leave a record whose miou is that of the rate; at 0.0002 the loss of `random` becomes infinite."""

    def train(args: Any, config: Any, settings: dict[str, Any]) -> int:
        args.out.mkdir(parents=True, exist_ok=True)
        outputs = ("backbone.safetensors",) if args.out.name.startswith("pretrain") else ()
        for name in outputs:
            (args.out / name).write_bytes((2).to_bytes(8, "little") + b"{}")
        rate = repr(config.run.optim.base_lr) if hasattr(config, "run") else "none"
        found = record(
            "segmentation", "own", 0, {"miou": values[rate] if rate in ("0.0001", "0.0002") else 1.0, "top1": 1.0},
            config=settings, data=str(args.data), weights_sha256=args.init and file_sha256(args.init), outputs=outputs,
        )  # fmt: skip
        if rate == "0.0002" and args.arm == "random":
            write_record(args.out, replace(found, status="failed", error="NonFiniteError: the loss is not finite"))
            return 1
        write_record(args.out, found)
        return 0

    def make(args: Any, _: Any) -> int:
        args.out.mkdir(parents=True, exist_ok=True)
        return 0

    return trained_by(train, make)


def test_a_study_searches_then_transfers_with_the_winner(
    made: Callable[..., Prepared], record: Record, tmp_path: Path
) -> None:
    study = made(tools=fake_tools(record, {"0.0001": 10.0, "0.0002": 30.0}))
    screen = io.StringIO()
    outcomes = Suite(study.tools, Console(file=screen, width=200)).carry_out(study.runs)
    assert {outcome.status for outcome in outcomes} == {"completed"}
    chosen = {name: read_record(tmp_path / f"out/cars-{name}-seed1").config for name in ("random", "mae")}
    assert {name: config["run"]["optim"]["base_lr"] for name, config in chosen.items()} == {
        "random": 0.0001,
        "mae": 0.0002,
    }
    text = screen.getvalue()
    assert "this learning rate is out of the question: NonFiniteError" in text
    assert text.count("Learning rate of mae in cars: 0.0002") == 1 and "WARNING: 0.0002 is the highest" in text
    assert text.index("search-cars-mae-lr0.0002: completed") < text.index("Learning rate of mae in cars")


def test_a_search_without_result_holds_back_its_own_transfers_alone(
    made: Callable[..., Prepared], record: Record
) -> None:
    tools = fake_tools(record, {"0.0001": 10.0})  # 0.0002 raises KeyError
    study = made(tools=tools)
    outcomes = {o.run.name: o for o in Suite(tools, Console(file=io.StringIO())).carry_out(study.runs)}
    assert outcomes["search-cars-mae-lr0.0002"].status == "failed"
    held = outcomes["cars-mae-seed0"]
    assert (held.status, held.error) == ("not run", "needs the search run lr0.0002, which has no record")
    assert outcomes["birds-mae-seed0"].good


@pytest.mark.parametrize(
    ("text", "seeds", "message"),
    [
        (SMALL.replace("seeds: [0, 1]", "seeds: [0, 1]\npretrain_seeds: tied"), (3, 4), "give it first: --seeds 0 3 4"),
        (
            SMALL.replace("seeds: [0, 1]", "seeds: [0, 1]\npretrain_seeds: crossed\npretraining_seeds: [0, 1]"),
            (0,),
            r"--seeds 0: 2 pre-trainings and 1 transfer seeds; give as many `seeds` or more",
        ),
    ],
)
def test_seeds_that_the_study_cannot_have(
    made: Callable[..., Prepared], text: str, seeds: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        made(text, seeds=seeds)
