"""Opening an image: every failure of a decoder names the file, the orientation alone is read, the limit is declared."""

import io
import os
import pickle
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from classification.spec import CLASSIFICATION
from engine.config import NOT_IDENTITY
from engine.images.file import VARIABLE, UnreadableImageError, allow_megapixels, most_megapixels, opened, upright_size
from engine.images.reading import read_rgb
from engine.launch import configured
from tests.pixel_files import png, tiff
from tools import check_data


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test change the limit, and put it back."""
    monkeypatch.setenv(VARIABLE, "179")


def exif(*tags: tuple[int, int, bytes]) -> bytes:
    """EXIF of (tag, type, content of one value up to 4 bytes)."""
    entries = b"".join(struct.pack("<HHI", tag, kind, 1) + data.ljust(4, b"\0") for tag, kind, data in tags)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_orientation_is_read_beside_malformed_tags(tmp_path: Path) -> None:
    stored = np.zeros((16, 32, 3), dtype=np.uint8)
    stored[:, :16] = 255
    # XResolution as text: Pillow's own turning writes all tags again, and fails
    bad = exif((0x0112, 3, b"\x06\0"), (0x011A, 2, b"72"))
    Image.fromarray(stored).save(tmp_path / "a.jpg", exif=bad, quality=95)
    shown = np.asarray(read_rgb(tmp_path / "a.jpg"))
    assert shown.shape == (32, 16, 3) and shown[:14].min() > 240 and shown[18:].max() < 15
    assert upright_size(tmp_path / "a.jpg") == (16, 32)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_pillow_turns(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    noise = np.random.default_rng(orientation).integers(0, 256, (5, 9, 3), dtype=np.uint8)
    for name in ("a.png", "a.webp", "a.tif", "a.jpg"):
        path = tmp_path / name
        tags = Image.Exif()
        tags[0x0112] = orientation
        Image.fromarray(noise).save(path, exif=tags)
        with Image.open(path) as image:
            expected = ImageOps.exif_transpose(image).convert("RGB")
        assert np.asarray(read_rgb(path)).tolist() == np.asarray(expected).tolist()
        assert upright_size(path) == expected.size
        assert ImageOps.exif_transpose(read_rgb(path)).size == expected.size  # it is not turned twice


@pytest.mark.parametrize(
    "error", [struct.error("x"), KeyError(5), ZeroDivisionError(), OverflowError("y"), MemoryError(), TypeError("z")]
)
def test_whatever_a_decoder_raises_names_the_file(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (2, 2)).save(path)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(UnreadableImageError, match=rf"a\.png: unreadable image \({type(error).__name__}: ") as caught:
        read_rgb(path)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.usefixtures("limit")
def test_the_limit_names_its_flag_and_can_be_raised(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (1500, 1000)).save(path)
    assert most_megapixels() == 179 and upright_size(path) == (1500, 1000)
    allow_megapixels(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(
            UnreadableImageError, match=r"large\.png: .*more than 1 megapixels.*raise the limit by --max-megapixels N"
        ):
            read_rgb(path)
    allow_megapixels(None)
    assert most_megapixels() == 1
    allow_megapixels(2)
    assert read_rgb(path).size == (1500, 1000)
    with opened(path, "x"):
        assert Image.MAX_IMAGE_PIXELS == 2_000_000


def test_pillows_own_limit_is_ours_to_raise(tmp_path: Path, limit: None) -> None:
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 0, 0, 0, 54, 40, 20000, 20000, 1, 24, 0, 0, 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(head)
    with pytest.raises(UnreadableImageError, match=r"a\.bmp: .*more than 179 megapixels.*--max-megapixels"):
        upright_size(tmp_path / "a.bmp")
    allow_megapixels(400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert upright_size(tmp_path / "a.bmp") == (20000, 20000)


def test_a_limit_that_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "many")
    with pytest.raises(UnreadableImageError, match=rf"a\.png: .*{VARIABLE} is 'many'; it must be a whole number"):
        read_rgb(tmp_path / "a.png")


class _Sizes(Dataset[tuple[int, int]]):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[int, int]:
        return upright_size(self.path)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_the_limit_reaches_loader_processes(tmp_path: Path, method: str) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (1500, 1000)).save(path)
    allow_megapixels(1)
    with warnings.catch_warnings(), pytest.raises(UnreadableImageError, match="more than 1 megapixels"):
        warnings.simplefilter("ignore")
        upright_size(path)
    allow_megapixels(2)
    loader = DataLoader(_Sizes(path), num_workers=2, multiprocessing_context=method, collate_fn=list)
    assert list(loader) == [[(1500, 1000)]] * 2


def level(tmp_path: Path, content: bytes, name: str = "a.tif") -> list[int]:
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(read_rgb(tmp_path / name))[0, :, 0].tolist()


def test_white_is_what_the_file_declares(tmp_path: Path) -> None:
    row = np.array([[0, 300, 2048, 4095]])
    assert level(tmp_path, tiff(row, 12)) == [0, 19, 128, 255]  # over 4095 / 255 = 16.06
    assert level(tmp_path, tiff(row, 16)) == [0, 1, 8, 16]  # over 257: dark as the file says
    assert level(tmp_path, tiff(row, 16, photometric=0)) == [255, 254, 247, 239]  # white is 0
    # a PGM of 12 bits, and one of 16 in which nothing is brighter than 200
    assert level(tmp_path, b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095), "a.pgm") == [0, 128, 255]
    assert level(tmp_path, b"P5 3 1 65535\n" + struct.pack(">3H", 0, 128, 200), "a.pgm") == [0, 0, 1]


def test_white_that_no_file_declares(tmp_path: Path) -> None:
    def floats(*values: float) -> list[int]:
        return level(tmp_path, tiff(np.array([values], dtype=np.float32), 32, sample=3))

    assert floats(0, 0.5, 1) == [0, 128, 255]
    assert floats(0, 0.5, 1.003) == [0, 128, 255]  # what a resampling left above white
    assert floats(-0.003, 0.5, 1) == [0, 128, 255]
    assert floats(0, float("nan"), 0.5, float("inf")) == [0, 0, 128, 255]
    assert floats(0, 100.5, 255.9) == [0, 100, 255]
    assert floats(0, 2, 3) == [0, 2, 3]  # whole: of 0 to 255
    assert floats(0, 65535, 6553.5) == [0, 255, 26]
    ints = np.array([[0, 256, 65535]], dtype=np.int32)
    assert level(tmp_path, tiff(ints, 32, sample=2)) == [0, 1, 255]
    assert level(tmp_path, tiff(ints[:, :1] + 255, 32, sample=2)) == [255]
    signed = np.array([[0, 16384, 32767]], dtype=np.int16)
    assert level(tmp_path, tiff(signed, 16, sample=2)) == level(tmp_path, tiff(signed, 16, sample=2, order=">"))
    assert level(tmp_path, tiff(signed, 16, sample=2)) == [0, 128, 255]
    assert level(tmp_path, tiff(signed // 256, 16, sample=2)) == [0, 64, 127]  # 8 bits in 16


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (np.array([[-1, 0, 1]], dtype=np.float32), r"grey levels from -1 to 1, and the file does not say which is bl"),
        (np.array([[0, 1.3]], dtype=np.float32), r"grey levels up to 1\.3 with fractions: white may be 255 or 1;"),
        (
            np.array([[0, 300.5]], dtype=np.float32),
            r"grey levels up to 300\.5 with fractions: white may be 65535 or 255;",
        ),
        (
            np.array([[0, 1e6]], dtype=np.float32),
            r"grey levels up to 1e\+06, and the file does not say which is white; save it",
        ),
        (np.array([[-1000, 3000]], dtype=np.int16), r"grey levels from -1000 to 3000, and"),
        (np.array([[0, 2**20]], dtype=np.int32), r"grey levels up to 1\.04858e\+06, and"),
    ],
)
def test_what_cannot_be_decided_is_refused(tmp_path: Path, values: np.ndarray, says: str) -> None:
    sample = 3 if values.dtype == np.float32 else 2
    (tmp_path / "a.tif").write_bytes(tiff(values, 8 * values.itemsize, sample=sample))
    with pytest.raises(UnreadableImageError, match=r"a\.tif: unreadable image \(" + says):
        read_rgb(tmp_path / "a.tif")


TWELVE = np.full((2, 2), 4095)


@pytest.mark.parametrize(
    ("content", "highest"),
    [
        (png(TWELVE, 16), 16),
        (png(np.repeat(TWELVE[..., None], 3, axis=2), 16, colour=2), 15),  # Pillow drops the lower 8 bits of colours
        (tiff(TWELVE, 16), 16),
        (tiff(TWELVE.astype(np.int32), 32, sample=2), 16),
        (tiff((TWELVE // 2).astype(np.int16), 16, sample=2), 16),
        (tiff(TWELVE.astype(np.float32), 32, sample=3), 16),
    ],
)
def test_nearly_black_16_bit_images_are_warned_of_once(
    tmp_path: Path, content: bytes, highest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.images.reading._warned", [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("a.png", "b.png"):
            (tmp_path / name).write_bytes(content)
            assert np.asarray(read_rgb(tmp_path / name)).max() == highest
    (said,) = [str(warning.message) for warning in caught if warning.category is UserWarning]
    assert "a.png: 16 bits, of which the brightest pixel has " in said and "Others like it are not named" in said


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_what_was_read_rightly_is_as_it_was(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    ending = "jpg" if mode == "YCbCr" else "tif" if mode == "CMYK" else "png"
    source = Image.fromarray(noise.astype(np.uint16)[..., 0] * 257) if mode == "I;16" else Image.fromarray(noise)
    (source if mode == "I;16" else source.convert(mode)).save(tmp_path / f"a.{ending}")
    with Image.open(io.BytesIO((tmp_path / f"a.{ending}").read_bytes())) as image:
        grey = Image.fromarray((np.asarray(image) // 257).astype(np.uint8)) if mode == "I;16" else image
        assert read_rgb(tmp_path / f"a.{ending}").tobytes() == grey.convert("RGB").tobytes()


def test_missing_files_are_named(tmp_path: Path) -> None:
    assert VARIABLE not in os.environ or os.environ[VARIABLE].isdigit()
    for read in (read_rgb, upright_size):
        with pytest.raises(UnreadableImageError, match=r"none\.jpg: unreadable image \(.*No such file"):
            read(tmp_path / "none.jpg")


@pytest.mark.usefixtures("limit")
def test_the_flag_of_the_tools(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("training", "validation"):
        for kind, ending in (("images", "jpg"), ("annotations", "png")):
            (tmp_path / kind / split).mkdir(parents=True)
            stripes = np.tile(np.array([1, 2], dtype=np.uint8), (1000, 750))
            Image.fromarray(stripes).save(tmp_path / kind / split / f"0.{ending}")
    flags = ["ade20k", str(tmp_path), "--sheet", str(tmp_path / "sheet.png"), "--max-megapixels"]
    assert check_data.main([*flags, "0"]) == 1
    assert "--max-megapixels 0: it must be from 1 to 1,000,000." in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert check_data.main([*flags, "1"]) == 1
    assert "raise the limit by --max-megapixels N" in capsys.readouterr().out
    assert check_data.main([*flags, "2"]) == 0


@pytest.mark.usefixtures("limit")
def test_the_flag_of_training_is_kept_with_the_run() -> None:
    flags = ["tiny", "--data", "x", "--out", "y", "--max-megapixels", "500"]
    _, config = configured(flags, [CLASSIFICATION], doc=None)
    assert config.run.max_megapixels == 500 and "max_megapixels" in NOT_IDENTITY
    allow_megapixels(config.run.max_megapixels, at_least=True)  # what evaluate and predict do of a run
    assert most_megapixels() == 500
    allow_megapixels(300, at_least=True)
    assert most_megapixels() == 500
