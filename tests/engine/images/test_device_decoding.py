"""Images decoded where the model is: the draws and nearly the pixels of `--resize tensor`, and what is left to Pillow.

A GPU's decoder is not there: the same code decodes on the CPU, whose pixels are those of the loader processes.
"""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from backbones.weights.normalisation import IMAGENET
from classification.config import Augmentation
from classification.data import LabelledImages, open_split, train_transform
from classification.recipes import tiny as tiny_classification
from classification.task import ClassificationTask, build_task
from engine.config import Duration
from engine.images import encoded as encoded_images
from engine.images import jpeg
from engine.images.encoded import REFUSED, EncodedBatch, encoded, open_encoded
from engine.images.file import UnreadableImageError
from engine.images.jpeg import picture_of
from engine.images.reading import ImageFile, file_at, open_images, read_rgb
from engine.training import ahead
from engine.training.ahead import on_device
from engine.training.data import Batch
from engine.training.loop import fit
from engine.training.seeding import seeded
from pretraining.data import MaskedImages
from pretraining.mae.config import MAEConfig
from pretraining.mae.task import MAETask
from pretraining.recipes import mae_base

CPU = torch.device("cpu")
AS_TENSORS = Augmentation(crop_scale=(0.2, 1.0), resize="tensor")
ON_DEVICE = replace(AS_TENSORS, decode="device")


def noisy(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return an image with detail at every scale."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
    smooth = np.array(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray((smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8))


def jpeg_of(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """JPEGs of two classes, in train and val."""
    for split in ("train", "val"):
        for number in range(6):
            path = tmp_path / split / "ab"[number % 2] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg_of(noisy(160 + 20 * number, 130, number), subsampling=number % 3))
    return tmp_path


def near(made: torch.Tensor, expected: torch.Tensor) -> None:
    """One level of rounding: the kernel for bytes rounds after each axis and has weights of 16 bits, floats do not.

    Other crops would differ by 30 levels and more on average.
    """
    assert made.dtype == expected.dtype == torch.uint8 and made.shape == expected.shape
    difference = (made.int() - expected.int()).abs()
    assert float(difference.float().mean()) < 0.3 and int(difference.max()) <= 2


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("options", [{"quality": 30}, {"quality": 95, "progressive": True}])
def test_both_decoders_give_the_same_pixels(subsampling: int, options: dict[str, Any]) -> None:
    content = jpeg_of(noisy(101, 77), subsampling=subsampling, **options)
    made = picture_of(ImageFile("a.jpg", content))
    assert isinstance(made, torch.Tensor)
    assert np.array_equal(made.permute(1, 2, 0).numpy(), np.array(Image.open(io.BytesIO(content))))


@pytest.mark.slow
def test_real_photographs_too(real_data: Path) -> None:
    files = sorted(real_data.rglob("*.jpg"))[::40][:25]
    assert len(files) == 25
    seen = 0
    for path in files:
        made = picture_of(file_at(path))
        if isinstance(made, torch.Tensor):
            seen += 1
            assert np.array_equal(made.permute(1, 2, 0).numpy(), np.array(read_rgb(path))), path
    assert seen > 20


@pytest.mark.parametrize("decode", ["full", "reduced"])
def test_crops_of_tensors_are_those_of_images_to_the_bit(decode: Any, photographs: Path) -> None:
    augment = replace(AS_TENSORS, decode=decode)
    data = LabelledImages(open_split(photographs, "train")[0], train_transform((48, 48), augment, IMAGENET))
    assert data.view.takes_tensors
    for index in range(len(data)):
        with seeded(index):
            made = data[index][0]
        with seeded(index):
            expected = data.view.pixels(read_rgb(data.path(index)))
        assert torch.equal(made, expected)  # type: ignore[arg-type]


def test_classification_sees_the_crops_of_the_loader_processes(photographs: Path) -> None:
    folder = open_split(photographs, "train")[0]
    samples: dict[str, list[Any]] = {}
    for name, augment in (("host", AS_TENSORS), ("device", ON_DEVICE)):
        data = LabelledImages(folder, train_transform((48, 40), augment, IMAGENET))
        samples[name] = []
        for index in range(len(data)):
            with seeded(index):
                samples[name].append((*data[index], torch.rand(3)))  # what follows is drawn alike
    for one, other in zip(samples["host"], samples["device"], strict=True):
        assert one[1:3] == other[1:3] and torch.equal(one[3], other[3])
    expected, labels, ids = ClassificationTask.collate([s[:3] for s in samples["host"]])
    batch = ClassificationTask.collate([s[:3] for s in samples["device"]])
    assert isinstance(batch[0], EncodedBatch) and torch.equal(batch[1], labels) and batch[2] == ids
    near(batch[0].to(CPU), expected)
    assert not batch[0].by_cpu
    assert {place.flipped for image in batch[0].images for place in image.places} == {True, False}


def test_mae_sees_the_crops_and_the_noise_of_the_loader_processes(photographs: Path) -> None:
    batches = []
    for augment in (AS_TENSORS, ON_DEVICE):
        view = train_transform((32, 32), augment, IMAGENET)
        data = MaskedImages(open_images(photographs / "train"), view, noise=lambda: torch.rand(16), repeats=3)
        samples = []
        for index in range(len(data)):
            with seeded(index):
                samples.append(data[index])
        batches.append(MAETask.collate(samples))
    (expected, noise, ids), (made, other_noise, other_ids) = batches
    assert torch.equal(noise, other_noise) and ids == other_ids
    near(made.to(CPU), expected)
    assert expected.shape[0] == 18


def rotated() -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return jpeg_of(noisy(90, 60), exif=exif)


def as_png() -> bytes:
    buffer = io.BytesIO()
    noisy(70, 50).save(buffer, "PNG")
    return buffer.getvalue()


OTHERS = {
    "PNG, not JPEG": as_png,
    "greyscale": lambda: jpeg_of(noisy(64, 60).convert("L")),
    "CMYK": lambda: jpeg_of(noisy(64, 60).convert("CMYK")),
    "EXIF-rotated": rotated,
    "does not end as a JPEG": lambda: jpeg_of(noisy(64, 60)) + b"more",
}


@pytest.mark.parametrize("reason", OTHERS)
def test_what_is_left_to_pillow_is_counted_and_seen_alike(reason: str) -> None:
    file = ImageFile("a", OTHERS[reason]())
    opened = open_encoded(file)
    assert (opened.reason, opened.size) == (reason, (60, 90) if reason == "EXIF-rotated" else opened.size)
    view = train_transform((32, 32), ON_DEVICE, IMAGENET)
    assert view.place is not None
    with seeded(1):
        places = [view.place(*opened.size) for _ in range(2)]
    batch = EncodedBatch([encoded(opened, places)])
    assert batch.by_cpu == {reason: 1}
    whole = picture_of(file)
    with seeded(1):
        near(batch.to("cpu"), torch.stack([view.pixels(whole) for _ in range(2)]))


@pytest.mark.parametrize("content", [b"", b"no image", jpeg_of(noisy(64, 60))[:-300]])
def test_a_broken_file_is_unreadable_before_anything_is_drawn(content: bytes, photographs: Path) -> None:
    data = LabelledImages(open_split(photographs, "train")[0], train_transform((32, 32), ON_DEVICE, IMAGENET))
    data.path(0).write_bytes(content)
    before = torch.get_rng_state()
    with pytest.raises(UnreadableImageError, match=r"0\.jpg"):
        data[0]
    assert torch.equal(torch.get_rng_state(), before)


def batch_on_device(photographs: Path, side: int = 32) -> EncodedBatch:
    data = LabelledImages(open_split(photographs, "train")[0], train_transform((side, side), ON_DEVICE, IMAGENET))
    samples = []
    for index in range(len(data)):
        with seeded(index):
            samples.append(data[index])
    batch = ClassificationTask.collate(samples)[0]
    assert isinstance(batch, EncodedBatch)
    return batch


def test_one_that_the_device_refuses_is_decoded_by_pillow(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batch_on_device(photographs).to(CPU)
    calls: list[int] = []

    def decode(files: list[torch.Tensor], mode: Any, *, device: torch.device) -> list[torch.Tensor]:
        calls.append(len(files))
        if any(len(file) == bad for file in files):
            raise RuntimeError("nvjpeg says no")
        return original(files, mode, device=device)

    original = jpeg.decode_jpeg
    monkeypatch.setattr(jpeg, "decode_jpeg", decode)
    batch = batch_on_device(photographs)
    bad = batch.counts[2]
    assert batch.counts.count(bad) == 1
    assert torch.equal(batch.to(CPU), expected)
    assert calls == [6, 1, 1, 1, 1, 1, 1] and batch.by_cpu == {REFUSED: 1}


def test_the_device_is_idle_before_its_decoder_writes(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder's stream waits for no other; the bytes stay on the host."""
    said: list[str] = []
    stream = SimpleNamespace(synchronize=lambda: said.append("idle"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)

    def decode(files: list[torch.Tensor], mode: Any, *, device: torch.device) -> list[torch.Tensor]:
        assert all(file.device == CPU and not file.is_pinned() for file in files)
        said.append(f"{len(files)} on {device}")
        return [torch.zeros(3, 1, 1, dtype=torch.uint8) for _ in files]

    monkeypatch.setattr(jpeg, "decode_jpeg", decode)
    batch = batch_on_device(photographs)
    assert not hasattr(batch, "pin_memory")  # which a loader would call
    files = list(zip(batch.images, batch.byte_N.split(batch.counts), strict=True))
    assert len(batch._decoded(files, torch.device("cuda"))) == 6
    assert said == ["idle", "6 on cuda"]


def test_memory_that_is_short_is_not_taken_for_a_refusal(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(jpeg, "decode_jpeg", decode)
    with pytest.raises(torch.OutOfMemoryError):
        batch_on_device(photographs).to(CPU)


def test_a_file_that_nobody_reads_ends_the_run_with_its_name(photographs: Path) -> None:
    batch = batch_on_device(photographs)
    start = batch.counts[0]
    batch.byte_N[start : start + 20] = 0  # the header of the second, which the loader process has read
    with pytest.raises(
        UnreadableImageError, match=r"2\.jpg: .*put a readable file in its place and go on with --resume"
    ):
        batch.to(CPU)


def test_large_images_are_decoded_few_at_once(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batch_on_device(photographs).to(CPU)
    sizes = []
    original = encoded_images.decoded
    monkeypatch.setattr(encoded_images, "AT_ONCE", 2 * 200 * 130)
    monkeypatch.setattr(
        encoded_images, "decoded", lambda files, device: (sizes.append(len(files)), original(files, device))[1]
    )
    assert torch.equal(batch_on_device(photographs).to(CPU), expected)
    assert sizes == [2, 1, 2, 1]  # 160, 200, 240, then 180, 220, 260 wide and 130 high, at most 52,000 pixels


def test_a_batch_of_a_run_is_counted_and_said(photographs: Path) -> None:
    (photographs / "train" / "a" / "0.jpg").write_bytes(as_png())
    said: list[str] = []
    fabric: Any = SimpleNamespace(device=CPU, to_device=lambda data: (data[0].to(CPU), *data[1:]))

    def batches() -> Any:
        for _ in range(2):
            yield Batch((batch_on_device(photographs), torch.zeros(6)), (), (), ())

    moved = list(on_device(batches(), fabric, said.append))
    assert [batch.data[0].dtype for batch in moved] == [torch.uint8] * 2
    assert said == ["decoded on the CPU, not on the device: 2 PNG, not JPEG"]


def short(photographs: Path, **augment: Any) -> tuple[Any, Any]:
    config = tiny_classification()
    run = replace(config.run, length=Duration(2), batch_size=4, device="cpu", precision="32-true")
    config = replace(config, run=run, augment=replace(config.augment, **augment))
    return build_task(config, data=photographs, init=None), config


def test_a_run_on_a_cpu_is_refused_and_leaves_nothing(photographs: Path, tmp_path: Path) -> None:
    task, config = short(photographs, resize="tensor", decode="device")
    with pytest.raises(ValueError, match="decode device: a GPU decodes the images by nvJPEG, and this run is on cpu"):
        fit(task, config, recipe="tiny", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_learns_from_what_the_device_decoded(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "DECODING", {"cuda", "cpu"})
    losses = []
    for decode in ("full", "device"):
        torch.manual_seed(0)
        task, config = short(photographs, resize="tensor", decode=decode)
        record = fit(task, config, recipe="tiny", out=tmp_path / decode)
        assert record.status == "completed"
        losses.append(record.losses["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.02)  # pixels that are a level apart


def test_what_cannot_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="crops are resized by PyTorch there, not by pillow; add --resize tensor"):
        Augmentation(decode="device")
    for more in ({"randaugment": "rand-m9"}, {"erase": 0.25}):
        with pytest.raises(ValueError, match="leave --randaugment and --erase out, or take --decode full"):
            Augmentation(decode="device", resize="tensor", **more)  # type: ignore[arg-type]
    mae: MAEConfig = mae_base()
    with pytest.raises(ValueError, match="not by pillow"):
        replace(mae, decode="device")
    run = replace(mae.run, augment_function="a.py:f")
    with pytest.raises(ValueError, match="--augment-function changes pixels in the loader processes"):
        replace(mae, decode="device", resize="tensor", run=run)
