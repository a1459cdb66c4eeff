"""`--init hf:OWNER/MODEL` in tools, studies and Python, against a hub on loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from backbones.vit import ViT
from backbones.weights.checkpoint import write_checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.hub import family_of, located, name_of, parse
from backbones.weights.normalisation import IMAGENET
from benchmark.study.pins import PINS, pinned
from benchmark.study.prepare import prepare
from classification.recipes import RECIPES
from engine.records.record import read_record
from mae_transfer import load_backbone
from scenes.layouts import ScenesIndex
from tests.hub_server import Hub, Repository, commit, serving
from tools import convert_checkpoint, eval_cls, probe, reconstruct, run_benchmark, train_cls
from tools.run_benchmark import TOOLS

OLD, NEW = commit(1), commit(2)


def weights(path: Path) -> bytes:
    """A ViT of the recipe `tiny`, in our format."""
    write_checkpoint(path, ViT(RECIPES["tiny"]().backbone), source="mae", normalisation=IMAGENET)
    return path.read_bytes()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    contents = {name: {"backbone.safetensors": weights(tmp_path / f"{name}.safetensors")} for name in (OLD, NEW)}
    with serving({"some/tiny": Repository(contents, {"main": OLD})}) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        yield made


def test_the_catalogue_knows_the_family_of_its_names() -> None:
    assert family_of(parse("hf:facebook/vit-mae-base")) == family_of(parse(f"hf:facebook/vit-mae-base@{OLD}"))
    assert family_of(parse("hf:facebook/vit-mae-base")) == "huggingface"
    assert family_of(parse("timm:vit_base_patch16_224.mae")) == family_of(parse("hf:timm/anything")) == "timm"
    mae = "https://dl.fbaipublicfiles.com/mae/pretrain/mae_pretrain_vit_base.pth"
    assert family_of(parse(mae)) == "mae"
    assert family_of(parse("hf:some/tiny")) is None and family_of(parse("https://host/mae.pth")) is None


def test_training_starts_from_a_name_and_its_record_states_the_commit(
    server: Hub, few_scenes: ScenesIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["tiny", "--data", str(few_scenes.imagenet), "--init", "hf:some/tiny", "--steps", "1", "--batch-size", "4"]
    assert train_cls.main([*flags, "--out", str(tmp_path / "run")]) == 0
    assert f"hf:some/tiny: hf:some/tiny@{OLD} is " in capsys.readouterr().out
    record = read_record(tmp_path / "run")
    assert record.weights_name == f"hf:some/tiny@{OLD}" and record.weights_source == "mae"
    server.repositories["some/tiny"].branches["main"] = NEW
    assert train_cls.main([*flags, "--out", str(tmp_path / "run"), "--resume"]) == 1  # of other weights
    assert "weights" in capsys.readouterr().err
    pinned_flags = [*flags[:4], record.weights_name, *flags[5:]]
    assert train_cls.main([*pinned_flags, "--out", str(tmp_path / "again")]) == 0
    assert read_record(tmp_path / "again").weights_sha256 == record.weights_sha256


def test_other_tools_and_python_take_names(server: Hub, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    backbone = load_backbone("hf:some/tiny")
    assert backbone.vit.architecture.embed_dim == RECIPES["tiny"]().backbone.embed_dim
    assert convert_checkpoint.main(["inspect", "hf:some/tiny"]) == 0
    flags = ["vit_demo_patch8", "--data", str(few_scenes.imagenet), "--init", "hf:some/tiny", "--init-architecture"]
    assert probe.main([*flags, "file", "--out", str(tmp_path / "probe"), "--linear-epochs", "1"]) == 0
    assert read_record(tmp_path / "probe" / "knn").weights_name == f"hf:some/tiny@{OLD}"
    shown = ["hf:some/tiny", str(few_scenes.imagenet), "--target", "pixels", "--count", "2"]
    assert reconstruct.main([*shown, "--out", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "pictures/attention.png").is_file()


@pytest.mark.parametrize(
    ("name", "family"),
    [
        (["--init", "hf:google/vit-base-patch16-224"], "huggingface"),
        (["--init", "timm:vit_base_patch16_224.mae"], "timm"),
        (["--init", "hf:some/tiny"], "timm"),
        (["--init", "hf:some/tiny", "--init-source", "augreg"], "augreg"),
    ],
)
def test_a_head_is_scored_by_the_family_of_its_name(
    name: list[str], family: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(declared: InitialWeights) -> InitialWeights:
        raise ValueError(f"it is read as {declared.source}")

    monkeypatch.setattr(eval_cls, "located", stop)
    assert eval_cls.main([*name, "--data", "x"]) == 1
    assert f"it is read as {family}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:some/absent", "hf:some/absent: the hub has no such model"),
        ("hf:tiny", "hf:tiny: no name of a model; it should be hf:OWNER/MODEL"),
        ("https://", "no address of a file"),
    ],
)
def test_a_name_that_leads_nowhere_is_an_error_of_one_line(
    name: str,
    message: str,
    server: Hub,
    few_scenes: ScenesIndex,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["tiny", "--data", str(few_scenes.imagenet), "--out", str(tmp_path / "run"), "--init", name]
    assert train_cls.main(flags) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line and not (tmp_path / "run").exists()


def test_a_file_states_its_name_where_it_came_by_one(server: Hub, tmp_path: Path) -> None:
    found = located(InitialWeights(path=Path("hf:some/tiny")))
    assert name_of(found.path) == f"hf:some/tiny@{OLD}"
    assert name_of(tmp_path / "models--a--b.pth") is None and name_of(Path("weights.pth")) is None
    assert located(InitialWeights(path=Path("weights.pth"))) == InitialWeights(path=Path("weights.pth"))


STUDY = """
name: named
seeds: [0, 1]
compare: {claim: mae, against: random}
arms:
  random: random
  mae: {init: "hf:some/tiny"}
tasks:
  photos: {tool: train_cls, recipe: tiny, data: imagenet, steps: 1, batch_size: 4}
"""


def test_a_study_keeps_the_commit_that_it_began_with(
    server: Hub, few_scenes: ScenesIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named.yaml").write_text(STUDY)

    def runs() -> list[str]:
        made = prepare(
            str(tmp_path / "named.yaml"), TOOLS, studies=tmp_path, out=tmp_path / "out", root=few_scenes.root
        )
        made.refuse()
        return [str(run.init) for run in made.runs if run.init is not None]

    assert runs() == ["hf:some/tiny"] * 2  # nothing is fetched to look at a study
    assert server.fetched() == []
    names = ("hf:some/tiny", "weights/other.pth")
    (path,) = pinned(tmp_path / "out", names, fetch=True).values()
    kept = json.loads((tmp_path / "out" / PINS).read_text())
    assert kept["hf:some/tiny"]["name"] == f"hf:some/tiny@{OLD}"
    server.repositories["some/tiny"].branches["main"] = NEW
    assert runs() == [str(path)] * 2
    assert pinned(tmp_path / "out", names, fetch=True) == {"hf:some/tiny": path}
    path.resolve().write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"weights.json: hf:some/tiny was a file of sha256 .* when the study began"):
        pinned(tmp_path / "out", names, fetch=True)
    (tmp_path / "out" / PINS).write_text("[]")
    with pytest.raises(ValueError, match=r"weights.json: not what a study keeps of its weights"):
        pinned(tmp_path / "out", names, fetch=True)


@pytest.mark.slow
def test_a_study_runs_from_names(server: Hub, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    (tmp_path / "named.yaml").write_text(STUDY.replace("[0, 1]", "[0]"))
    flags = [str(tmp_path / "named.yaml"), "--data", str(few_scenes.root), "--out", str(tmp_path / "out")]
    assert run_benchmark.main(flags) == 0
    record = read_record(tmp_path / "out" / "photos-mae-seed0")
    assert record.weights_name == f"hf:some/tiny@{OLD}" and record.status == "completed"
    server.repositories["some/tiny"].branches["main"] = NEW
    assert run_benchmark.main(flags) == 0  # recorded already, of the same commit
