"""What was written before version 2 of the records opens in the words of today: compared, counted, gone on from."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.fairness import transfer_problems
from benchmark.compare.records import open_store
from benchmark.report.export import EXPORTS
from benchmark.runner.recorded import is_finished, other_settings
from benchmark.study.plan import read_plans
from benchmark.study.run import Run
from benchmark.study.search import read_choice
from benchmark.study.tool import Job
from engine.records import version1
from engine.records.identity import read_identity
from engine.records.record import SCHEMA_VERSION, read_record, write_record
from files.digest import sealed
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tools import train_cls
from tools.run_benchmark import TOOLS

BEFORE = Path(__file__).with_name("record_version_1.json").read_text(encoding="utf-8")
FLAGS = ("tiny", "--steps", "3", "--batch-size", "8", "--label-fraction", "0.5", "--crop-pct", "0.8")


def written(folder: Path, name: str, values: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(sealed(values), indent=1))
    return path


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """The folder of a run of version 1, as it was written."""
    folder = tmp_path / "runs" / "before"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(BEFORE)
    return folder


def test_a_record_of_before_says_what_version_2_says(before: Path, tmp_path: Path) -> None:
    record = read_record(before)
    assert record.schema_version == SCHEMA_VERSION == 2 and record.config["crop_pct"] == 0.8
    assert record.config["label_fraction"] == 0.5 and not {"crop_share", "label_share"} & record.config.keys()
    assert record.departures[:2] == ("crop_pct: 0.875 -> 0.8", "label_fraction: None -> 0.5")
    write_record(tmp_path, record)
    assert json.loads((tmp_path / "record.json").read_text())["schema_version"] == 2
    assert read_record(tmp_path) == record


def test_a_changed_record_of_before_is_refused(before: Path) -> None:
    (before / "record.json").write_text(BEFORE.replace('"label_share": 0.5', '"label_share": 0.1'))
    with pytest.raises(ValueError, match="its content is not what was written"):
        read_record(before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"taps": [1, 2, 3, 5], "layout": "voc"}, {"out_indices": [1, 2, 3, 5], "layout": "voc"}),
        ({"pyramid": "four_tap"}, {"pyramid": "fpn"}),
        ({"pyramid": "simple", "flip": True}, {"pyramid": "sfp", "flip": True}),
        ({"loss_on": "hidden"}, {"loss_on": "masked"}),
        ({"loss_on": "all", "hidden": 64}, {"loss_on": "all", "hidden": 64}),
        ({"pyramid": ["simple"]}, {"pyramid": ["simple"]}),
        ([1], [1]),
    ],
)
def test_words_of_every_task(old: Any, new: Any) -> None:
    assert version1.config_of_today(old) == new
    assert version1.config_of_today(new) == new


def test_departures_of_values_and_sentences_that_are_none() -> None:
    old = ["loss_on: hidden -> all", "taps: [1] -> [2]", "published in float16: a -> b", "no arrow: here", 3]
    assert version1.record_of_today({"departures": old})["departures"] == [
        "loss_on: masked -> all", "out_indices: [1] -> [2]", "published in float16: a -> b", "no arrow: here", 3,
    ]  # fmt: skip


def test_a_table_shows_a_run_of_before(before: Path) -> None:
    text = EXPORTS["md"](compare(open_store(before.parent, TASKS), resamples=0))
    assert "| classification, 50 % of labels | top1     | 7.50 ± - (1) " in text and "; 0 not readable" in text


def job(folder: Path, **changes: Any) -> Job:
    """The call that made the run of before, in the words of today."""
    # the recipe's learning rate was another then
    options = {"steps": 3, "batch_size": 8, "label_fraction": 0.5, "crop_pct": 0.8, "base_lr": 1e-3, **changes}
    return TOOLS["train_cls"].job("tiny", {"data": Path("scenes/imagenet"), "out": folder, **options})


def test_a_run_of_before_is_compared_with_one_of_today(before: Path) -> None:
    record = read_record(before)
    today = json.loads(json.dumps(job(before).settings))
    write_record(before.parent / "today", replace(record, config=today, arm="other"))
    stored = open_store(before.parent, TASKS).stored
    assert len(stored) == 2 and transfer_problems(stored, later=TOOLS["train_cls"].later) == []


def test_an_architecture_of_before_has_the_defaults_of_later_fields(before: Path) -> None:
    record = read_record(before)
    assert "registers" not in record.architecture
    today = {**record.architecture, "registers": 0, "activation": "gelu", "pre_norm": False, "norm_eps": 1e-6}
    write_record(before.parent / "today", replace(record, architecture=today, arm="other"))
    assert transfer_problems(open_store(before.parent, TASKS).stored) == []
    write_record(before.parent / "today", replace(record, architecture={**today, "registers": 4}, arm="other"))
    (problem,) = transfer_problems(open_store(before.parent, TASKS).stored)
    assert problem.startswith("architecture.registers")


def test_a_study_counts_a_run_of_before_as_finished(before: Path) -> None:
    run = Run(
        name="a",
        tool="train_cls",
        recipe="tiny",
        job=job(before),
        out=before,
        logs=before,
        phase="transfer",
        kind="x",
        records=(before,),
    )
    record, later = read_record(before), TOOLS["train_cls"].later
    assert is_finished(run, record, [run]) and other_settings(run, record, later) == []
    token = replace(record, config={**record.config, "class_token": False})  # of weights that have none
    assert other_settings(run, token, later) == []
    other = replace(run, job=job(before, crop_pct=0.9))
    assert other_settings(other, record, later) == ["crop_pct: 0.8 -> 0.9"]


def test_plans_and_choices_of_before(tmp_path: Path) -> None:
    written(tmp_path, "study.json", {"name": "a", "match": "passes", "arms": [], "runs": []})
    assert read_plans(tmp_path)[tmp_path].match == "samples"
    tried = [{"rate": 1e-3, "value": 40.0}, {"rate": 2e-3, "value": None}]
    values = {"task": "x", "arm": "mae", "metric": "top1", "val_split": "val", "val_images": 9, "seed": 100}
    written(tmp_path, "choice.json", {**values, "rate": 1e-3, "tried": tried})
    choice = read_choice(tmp_path)
    assert choice is not None and (choice.base_lr, choice.tried[1].base_lr) == (1e-3, 2e-3)


def test_an_interrupted_run_of_before_goes_on(
    few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    flags = [*FLAGS, "--data", str(few_scenes.root / "imagenet"), "--out", str(out)]
    assert train_cls.main(flags) == 0
    finished = read_record(out)
    for name in ("config.json", "record.json"):
        values = json.loads((out / name).read_text())
        old = {"crop_pct": "crop_share", "label_fraction": "label_share"}
        values["config"] = {old.get(key, key): value for key, value in values["config"].items()}
        del values["sha256"], values["schema_version"]
        written(out, name, {**values, **({"schema_version": 1} if name == "record.json" else {})})
    assert train_cls.main([*flags, "--crop-pct", "0.9", "--resume"]) == 1
    assert "config.crop_pct: 0.8 -> 0.9. Repeat its flags, or give another --out." in capsys.readouterr().err
    assert train_cls.main([*flags, "--resume"]) == 0
    resumed = read_record(out)
    assert (resumed.config, resumed.metrics, resumed.run_id) == (finished.config, finished.metrics, finished.run_id)
    assert '"crop_pct"' in (out / "record.json").read_text()


def test_a_configuration_of_a_later_version_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "config.json", {"recipe": "tiny", "config": {}, "schema_version": 3})
    with pytest.raises(ValueError, match=r"config\.json: not a readable configuration \(schema version 3, this code"):
        read_identity(tmp_path / "config.json")
