"""Weights with their head, scored: logits and top-1 are those of timm's model under timm's transforms."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.data
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision.datasets import ImageFolder

from backbones.weights.declaration import InitialWeights
from backbones.weights.normalisation import Normalisation
from classification.data import eval_transform
from classification.robustness import Known, mean_top1, score_corruptions, score_folder
from classification.with_head import classifier_of, top_predictions, top_scores
from engine.device import make_fabric
from engine.images.reading import find_images
from tools import eval_cls, robustness, train_cls

CLASSES = 7
DECLARED = partial(InitialWeights, source="timm", mean=Normalisation().mean, std=Normalisation().std)
PIXELS = ["--init-mean", "0.485", "0.456", "0.406", "--init-std", "0.229", "0.224", "0.225"]


def foreign(path: Path, pooling: str, *, size: int = 224) -> torch.nn.Module:
    """A tiny timm ViT with random weights, its head included, saved as timm saves it."""
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=CLASSES, depth=2, img_size=size, global_pool=pooling, pretrained=False
    ).eval()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():  # also biases and norms, which start as zeros and ones
        scale = 0.5 if name == "head.weight" else 0.05
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    save_file(model.state_dict(), path)
    return model


@pytest.mark.parametrize("pooling", ["token", "avg"])
@pytest.mark.parametrize("crop", [224 / 256, 0.9, 0.95, 1.0])
def test_equal_to_timm_on_photographs(real_data: Path, tmp_path: Path, pooling: str, crop: float) -> None:
    theirs = foreign(tmp_path / "w.safetensors", pooling)
    ours, normalisation = classifier_of(DECLARED(path=tmp_path / "w.safetensors"))
    transform = timm.data.create_transform(
        224, interpolation="bicubic", crop_pct=crop, mean=normalisation.mean, std=normalisation.std
    )
    mine = eval_transform((224, 224), crop, normalisation)
    images = []
    for path in find_images(real_data / "gallery")[:8]:
        with Image.open(path) as file:
            images.append(file.convert("RGB"))
    with torch.no_grad():
        expected = theirs(torch.stack([transform(image) for image in images]))
        made = ours.logits(torch.stack([mine(image) for image in images]))
    # pixels differ by 1e-6 (see test_evaluation_equals_timm), sums are in another order; logits are about 4
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert torch.equal(made.argmax(dim=1), expected.argmax(dim=1))
    assert len(set(expected.argmax(dim=1).tolist())) > 1


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Noise of as many classes as the head has, in val/."""
    rng = np.random.default_rng(0)
    for label in range(CLASSES):
        folder = tmp_path / "data" / "val" / f"n{label}"
        folder.mkdir(parents=True)
        for number in range(2):
            base = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(base).resize((90, 70)).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_tool_gives_timms_top1(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = foreign(tmp_path / "w.safetensors", "avg", size=64)
    transform = timm.data.create_transform(
        64, interpolation="bicubic", crop_pct=0.9, mean=Normalisation().mean, std=Normalisation().std
    )
    images, labels = zip(*ImageFolder(str(folders / "val"), transform), strict=True)
    with torch.no_grad():
        logits = theirs(torch.stack(images))
    top1, top5 = (float(share) for share in timm.utils.accuracy(logits, torch.tensor(labels), topk=(1, 5)))
    arguments = ["--init", str(tmp_path / "w.safetensors"), "--data", str(folders), "--crop-pct", "0.9"]
    assert eval_cls.main(arguments) == 1  # the name of the file does not tell mean and std
    assert "--init-mean" in capsys.readouterr().err
    code = eval_cls.main([*arguments, "--batch-size", "4", *PIXELS])
    assert code == 0
    assert capsys.readouterr().out.splitlines() == [f"top1 {top1:.4f}", f"top5 {top5:.4f}"]


def test_clips_projection_is_no_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    model = timm.create_model("vit_base_patch16_clip_224", img_size=32, num_classes=7, **sizes)
    path = tmp_path / "model.safetensors"
    save_file(model.state_dict(), path)
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "vit_base_patch16_clip_224", "model_args": sizes, "pretrained_cfg": {}})
    )
    assert eval_cls.main(["--init", str(path), "--data", str(tmp_path), *PIXELS]) == 1
    assert (
        "its head is CLIP's projection of the image to the space that it shares with texts" in capsys.readouterr().err
    )
    model.head.bias.data[0] = 0.5  # fine-tuned
    save_file(model.state_dict(), path)
    assert classifier_of(DECLARED(path=path))[0].head.out_features == 7


def test_what_has_no_head_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = foreign(tmp_path / "w.safetensors", "token")
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head")}
    save_file(state, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="has no head to score; train one"):
        classifier_of(DECLARED(path=tmp_path / "bare.safetensors"))
    for name in ("ant", "bee"):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "val" / "ant" / "0.png")
    assert eval_cls.main(["--init", str(tmp_path / "w.safetensors"), "--data", str(tmp_path / "data"), *PIXELS]) == 1
    assert "2 class folders for a head of 7 outputs" in capsys.readouterr().err


def bright(images: torch.Tensor) -> torch.Tensor:
    """A classifier of four classes by brightness: 0 to 3 from dark to bright, of bytes."""
    level = images.float().mean(dim=(1, 2, 3)) / 85
    return -(level[:, None] - torch.arange(4.0)).abs()


IDENTITY = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
FABRIC = make_fabric("32-true", device="cpu")
KNOWN = Known(
    logits=bright,
    classes=["a", "b", "c", "d"],
    view=eval_transform((8, 8), 1.0, IDENTITY),
    fabric=FABRIC,
    batch_size=2,
    workers=0,
)


def paint(root: Path, **levels: list[int]) -> Path:
    """Grey images by class, of which each level is a number from 0 to 3."""
    for name, values in levels.items():
        (root / name).mkdir(parents=True)
        for number, level in enumerate(values):
            Image.new("RGB", (8, 8), (85 * level,) * 3).save(root / name / f"{number}.png")
    return root


def test_only_the_classes_of_the_folder_compete(tmp_path: Path) -> None:
    # b is level 1, d level 3; a dark image (0) is nearest to class a, which does not compete
    scored = score_folder(paint(tmp_path / "r", b=[1, 0], d=[3, 1, 3]), KNOWN)
    assert (scored.images, scored.classes) == (5, 2)
    assert scored.top1 == pytest.approx(80.0)


def test_corruptions_by_hand(tmp_path: Path) -> None:
    paint(tmp_path / "c" / "fog" / "1", a=[0], c=[2])  # 100
    paint(tmp_path / "c" / "fog" / "2", a=[0], c=[0])  # 50
    paint(tmp_path / "c" / "snow" / "1", a=[2], c=[0])  # 0
    paint(tmp_path / "c" / "snow" / "2", a=[0], c=[0])  # 50
    said: list[str] = []
    fog, snow = score_corruptions(tmp_path / "c", KNOWN, said.append)
    assert (fog.name, fog.top1, snow.top1, mean_top1([fog, snow])) == ("fog", 75.0, 25.0, 50.0)
    assert said == ["fog: 1 100.00, 2 50.00", "snow: 1 0.00, 2 50.00"]
    paint(tmp_path / "c" / "snow" / "3", a=[0])
    with pytest.raises(ValueError, match=r"different severities \(fog: 1, 2; snow: 1, 2, 3\)"):
        score_corruptions(tmp_path / "c", KNOWN, said.append)


def test_wrong_layouts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 of its 2 class folders are none of the model's 4 classes: x; .*a, b, c"):
        score_folder(paint(tmp_path / "r", a=[0], x=[1]), KNOWN)
    with pytest.raises(FileNotFoundError, match="looked for <corruption>/<1 to 5>/<class>/<image>; not so: a, x"):
        score_corruptions(tmp_path / "r", KNOWN, print)
    with pytest.raises(FileNotFoundError, match="absent: no such folder"):
        score_folder(tmp_path / "absent", KNOWN)
    with pytest.raises(ValueError, match="one: all its images are of one class, 'a'; two are needed to tell apart"):
        score_folder(paint(tmp_path / "one", a=[0]), KNOWN)


def test_what_is_the_systems_is_not_scored(tmp_path: Path) -> None:
    root = paint(tmp_path / "c" / "fog" / "1", a=[0], c=[2], __MACOSX=[1])
    paint(tmp_path / "c" / ".cache", a=[0])
    (root / "a" / "._0.png").write_bytes(b"\0\5\x16\7")
    (fog,) = score_corruptions(tmp_path / "c", KNOWN, print)
    scored = fog.by_severity[1]
    assert (scored.images, scored.classes, scored.top1, scored.unreadable) == (2, 2, 100.0, ())
    assert scored.notes == (
        "1: 2 images hidden or of the system left out (__MACOSX/0.png, a/._0.png)",
        "1: 1 folders hidden or of the system are no classes (__MACOSX)",
    )


def test_unreadable_images_are_counted(tmp_path: Path) -> None:
    root = paint(tmp_path / "r", a=[0, 0], c=[])
    (root / "a" / "0.png").write_bytes(b"")
    scored = score_folder(root, KNOWN)
    assert (scored.images, scored.top1, len(scored.unreadable)) == (1, 100.0, 1)
    (root / "a" / "1.png").write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"r: none of its 2 images can be read; the first: .*a/0\.png: unreadable image"
    ):
        score_folder(root, KNOWN)


def test_robustness_of_a_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train_cls.main(["tiny", "--data", str(data), "--out", str(run), "--steps", "2", "--batch-size", "4"]) == 0
    assert robustness.main([str(run), "folders", str(data / "val")]) == 0
    assert (run / "robustness" / "val.json").is_file()
    assert capsys.readouterr().out.splitlines()[-1].startswith("top1 ")


def test_top_scores_by_hand() -> None:
    results, _ = top_predictions(bright, _Four(), fabric=FABRIC, batch_size=3, workers=0, kept=[0, 1, 2, 3])  # type: ignore[arg-type]
    assert top_scores(results) == {"top1": 75.0, "top5": 100.0}


class _Four:
    """Images of level 0 to 3; the last is labelled 0."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, str]:
        return torch.full((3, 2, 2), 85 * index, dtype=torch.uint8), index % 3, str(index)

    def image_id(self, index: int) -> str:
        return str(index)


def test_eva_clips_projection_is_no_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its bias was trained, so the number of rows tells."""
    sizes = {"embed_dim": 32, "depth": 1, "num_heads": 2}
    model = timm.create_model("eva02_base_patch16_clip_224", img_size=32, num_classes=512, **sizes)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "eva02_base_patch16_clip_224", "model_args": sizes, "pretrained_cfg": {}})
    )
    arguments = ["--init", str(tmp_path / "model.safetensors"), "--data", str(tmp_path), *PIXELS]
    assert eval_cls.main(arguments) == 1
    assert "512 rows in EVA-02's CLIP), and no classifier" in capsys.readouterr().err
