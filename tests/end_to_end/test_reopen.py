"""Runs that are opened again: the initial weights are not needed, no record is trusted, nothing outside is written."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.normalisation import Normalisation
from engine.records.record import read_record, write_record
from engine.records.recording import precision_name
from engine.runs.reopen import Asked, rebuild
from engine.runs.trained import On, open_trained
from mae_transfer.tasks import TASKS
from scenes.layouts import ScenesIndex
from tools import evaluate, export_onnx, predict, reconstruct, robustness, train_cls

Tool = Callable[[Path, Path], list[str]]
TOOLS: dict[str, tuple[Callable[[list[str]], int], Tool]] = {
    "evaluate": (evaluate.main, lambda run, out: [str(run)]),
    "predict": (predict.main, lambda run, out: [str(run), str(_images(run)), "--out", str(out)]),
    "export_onnx": (export_onnx.main, lambda run, out: [str(run), "--out", str(out / "m.onnx")]),
    "robustness": (robustness.main, lambda run, out: [str(run), "folders", str(_images(run))]),
    "reconstruct": (reconstruct.main, lambda run, out: [str(run), str(_images(run)), "--out", str(out)]),
}


def _images(run: Path) -> Path:
    return Path(json.loads((run / "record.json").read_text())["data"]) / "val"


class Marker:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.fixture(scope="module")
def trained(few_scenes: ScenesIndex, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights that have a normalisation of their own, and a run of one step from them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("trained")
    normalisation = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    weights = folder / "weights.safetensors"
    write_checkpoint(weights, ViT(FAMILY["vit_demo_patch8"]), source="mae", normalisation=normalisation)
    flags = ["--data", str(few_scenes.root / "imagenet"), "--steps", "1", "--batch-size", "4"]
    assert train_cls.main(["tiny", *flags, "--init", str(weights), "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the run, its weights beside it."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    _changed(tmp_path / "run", weights_path=str(tmp_path / "weights.safetensors"))
    return tmp_path / "run"


def _changed(run: Path, **changes: Any) -> None:
    record = read_record(run)
    write_record(run, type(record)(**{**record.__dict__, **changes}))


def _again(run: Path) -> dict[str, float]:
    record = read_record(run)
    values: dict[str, float] = json.loads((run / "evaluations" / record.val_split / "metrics.json").read_text())[
        "metrics"
    ]
    return values


def test_the_initial_weights_may_be_gone_or_others(run: Path, tmp_path: Path) -> None:
    record, weights = read_record(run), tmp_path / "weights.safetensors"
    assert record.normalisation == {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    weights.unlink()
    assert evaluate.main([str(run)]) == 0 and _again(run) == record.metrics
    write_checkpoint(weights, ViT(FAMILY["vit_demo_patch8"]), source="mae")  # ImageNet's normalisation
    results = (run / "results.jsonl").read_bytes()
    assert evaluate.main([str(run)]) == 0
    assert (run / "evaluations" / "val" / "results.jsonl").read_bytes() == results


def test_a_run_is_opened_in_the_precision_of_its_record(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _changed(run, precision="32-true")
    for module in ("engine.device", "engine.runs.recorded"):
        monkeypatch.setattr(f"{module}.auto_precision", lambda **_: "bf16-mixed")
    on, said = On(device="cpu"), list[str]()
    assert precision_name(open_trained(run, TASKS, on, say=said.append).fabric) == "32-true"
    assert precision_name(rebuild(run, TASKS, Asked(device="cpu"), say=said.append).fabric()) == "32-true"
    assert not [line for line in said if line.startswith("precision")]


def test_a_record_of_before_takes_the_very_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record, weights = read_record(run), tmp_path / "weights.safetensors"
    _changed(run, normalisation=None)
    assert evaluate.main([str(run)]) == 0 and _again(run) == record.metrics
    write_checkpoint(weights, ViT(FAMILY["vit_demo_patch8"]), source="mae")
    assert evaluate.main([str(run)]) == 1
    said = capsys.readouterr().err
    assert "weights.safetensors: is another file now (sha256 " in said and f"({record.weights_sha256})" in said
    weights.unlink()
    assert evaluate.main([str(run)]) == 1
    assert "weights.safetensors: the weights that the run started from are gone" in capsys.readouterr().err


@pytest.mark.parametrize("tool", TOOLS)
def test_no_record_makes_a_tool_read_a_pickle(
    tool: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, marker = tmp_path / "bad.pkl", tmp_path / "marker"
    bad.write_bytes(pickle.dumps(Marker(marker)))
    options = {**read_record(run).weights_options, "source": "detectron2"}
    assert "trust_pickle" not in options
    (run / "backbone.safetensors").write_bytes(bad.read_bytes())
    options["trust_pickle"] = True
    _changed(run, normalisation=None, weights_path=str(bad), weights_sha256=None, weights_options=options)
    main, flags = TOOLS[tool]
    assert main(flags(run, tmp_path / "out")) == 1
    assert not marker.exists()
    if tool != "reconstruct":
        assert "bad.pkl: is a pickle, and unpickling can run any code" in capsys.readouterr().err
        assert main([*flags(run, tmp_path / "out"), "--trust-pickle"]) == 1  # the user's own word; no weights in it
        assert marker.exists()


def test_a_record_writes_nothing_outside_of_its_folder(
    run: Path, tmp_path: Path, few_scenes: ScenesIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    split = f"../../{few_scenes.root.name}/imagenet/val"
    record = read_record(run)
    _changed(run, config={**record.config, "val_split": f"../{Path(record.data).name}/val"}, val_split=split)
    before = {*tmp_path.iterdir(), *run.iterdir()}
    assert evaluate.main([str(run)]) == 0
    assert {*tmp_path.iterdir(), *run.iterdir()} == before | {run / "evaluations"}
    assert f"data: {record.data}, as the record says" in capsys.readouterr().out
    assert [path.name for path in (run / "evaluations").iterdir()] == ["_imagenet_val"]


def test_a_linked_folder_is_not_written_to(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("evaluations", "predictions", "robustness"):
        (run / name).symlink_to(tmp_path / "elsewhere")
    for main, flags in ((evaluate.main, []), (predict.main, [str(_images(run))]), (robustness.main, ["folders", "x"])):
        assert main([str(run), *flags]) == 1
        assert f"is a link to {tmp_path / 'elsewhere'}; what is read from or written to" in capsys.readouterr().err
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_an_export_is_not_written_over_the_run(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = next((run / "checkpoints").iterdir())
    for path in (run / "record.json", checkpoint):
        before = path.read_bytes()
        assert export_onnx.main([str(run), "--out", str(path)]) == 1
        assert f"{path}: would be written over" in capsys.readouterr().err and path.read_bytes() == before


def test_a_configuration_of_wrong_types_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = read_record(run).config
    _changed(run, config={**config, "run": {**config["run"], "seed": "x", "batch_size": 0}, "crop_pct": None})
    assert evaluate.main([str(run)]) == 1
    said = capsys.readouterr().err
    assert f"{run / 'record.json'}: " in said
    assert "config.run.seed: 'x' is no whole number" in said and "config.crop_pct: None is no finite number" in said


@pytest.mark.parametrize("tool", ["evaluate", "predict", "export_onnx", "robustness"])
def test_what_is_read_by_the_word_of_the_record_is_said(
    tool: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything comes of it: the run's own checkpoint is another model's here."""
    monkeypatch.setattr("engine.training.resume._fill", lambda *_: pytest.fail("read too far"))
    config = {**read_record(run).config, "train_list": str(tmp_path / "gone.txt")}  # of no use to any of them
    _changed(run, config=config, normalisation=None)
    main, flags = TOOLS[tool]
    with pytest.raises(pytest.fail.Exception, match="read too far"):
        main(flags(run, tmp_path / "out"))
    said = capsys.readouterr().out
    assert f"weights: {tmp_path / 'weights.safetensors'}, as the record says" in said
    assert (f"data: {read_record(run).data}, as the record says" in said) == (tool == "evaluate")  # it alone opens them
    assert "train_list" not in said


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        *((tool, name) for tool in TOOLS if tool != "reconstruct" for name in ("checkpoints", "step", "record.json")),
        *(("reconstruct", name) for name in ("record.json", "backbone.safetensors")),
    ],
)
def test_no_tool_reads_through_a_link_out_of_the_run(
    tool: str, name: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next((run / "checkpoints").iterdir()) if name == "step" else run / name
    path.rename(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    main, flags = TOOLS[tool]
    assert main(flags(run, tmp_path / "out")) == 1
    assert f"{path} is a link to {tmp_path / 'other'};" in capsys.readouterr().err


def test_a_run_whose_whole_folder_is_a_link_is_opened(run: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(run)
    assert evaluate.main([str(tmp_path / "linked")]) == 0
