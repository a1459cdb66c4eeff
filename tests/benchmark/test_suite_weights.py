"""The suite sees weights that are no longer those of a pre-training's record, before it looks at the transfers."""

from pathlib import Path

from backbones.config import FAMILY
from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from benchmark.runner.recorded import spoilt_outputs
from benchmark.runner.status import state_of
from tests.benchmark.fake_tools import SCENES, FakeTools, Passed, Record, demo


def test_a_pretraining_whose_weights_changed_is_done_again_before_its_transfers(
    tools: FakeTools, tmp_path: Path
) -> None:
    runs, out = demo(tmp_path), tmp_path / "demo"
    Passed(tools, runs, out)
    tools.called()
    file = out / "pretrain-mae/backbone.safetensors"
    whole = file.read_bytes()
    damaged = whole.replace(b"weights of", b"weights_of")
    file.write_bytes(damaged)
    run = next(run for run in runs if run.name == "pretrain-mae")
    assert state_of(run, runs).startswith(f"failed: {file}: is not the file that its record speaks of")
    tools.behaviour["pretrain-mae"] = lambda stop: 1
    failed = Passed(tools, runs, out)
    names = [f"{task}-mae-seed0" for task in ("classification", "detection", "segmentation")]
    assert {failed.of(name).error for name in names} == {"needs pretrain-mae"}
    assert f"warning: {file}: is not the file that its record speaks of" in failed.screen
    assert "pretrain-mae is therefore done again, from its last checkpoint" in failed.screen
    assert "Remove that folder" not in failed.screen
    tools.behaviour.clear()
    again = Passed(tools, runs, out)
    assert again.code == 0 and file.read_bytes() == whole
    assert tools.called() == [*SCENES, "pretrain-mae resumed", *SCENES, "pretrain-mae resumed"]
    assert {again.of(name).status for name in names} == {"recorded"}


def test_the_checksum_in_the_weights_is_seen_where_the_record_knows_none(
    tools: FakeTools, tmp_path: Path, record: Record
) -> None:
    run = next(run for run in demo(tmp_path) if run.name == "pretrain-mae")
    file = run.out / "backbone.safetensors"
    write_checkpoint(file, ViT(FAMILY["vit_demo_patch8"]), source="mae")
    found = record("mae", "random", 0, {}, outputs=(file.name,))
    assert not spoilt_outputs(run, found)
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    (line,) = spoilt_outputs(run, found)
    assert line.startswith(f"{file}: is not what was written: its checksum differs")


def test_the_weights_of_a_transfer_serve_no_run(tmp_path: Path, record: Record) -> None:
    """They may be removed to save room: nothing is done again for them."""
    run = next(run for run in demo(tmp_path) if run.phase == "transfer")
    found = record("classification", "mae", 0, {"top1": 1.0}, outputs=("backbone.safetensors",))
    assert not spoilt_outputs(run, found) and not (run.out / "backbone.safetensors").exists()
