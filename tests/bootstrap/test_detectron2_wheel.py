"""The repacked detectron2 wheel: what it holds, what it says of itself, and what is refused."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from bootstrap import detectron2_wheel
from bootstrap.installer import SetupError

INFO = "sal_detectron2-0.7.2.dist-info"
METADATA = """\
Metadata-Version: 2.1
Name: sal-detectron2
Version: 0.7.2
Home-page: https://github.com/facebookresearch/detectron2
Requires-Python: >=3.8
Requires-Dist: Pillow>=7.1
Requires-Dist: numpy<2
Requires-Dist: black
Requires-Dist: dataclasses; python_version < "3.7"
Requires-Dist: omegaconf<2.4,>=2.1
Provides-Extra: all
Requires-Dist: scipy>1.5.1; extra == "all"
"""
FILES = {
    "detectron2/__init__.py": "__version__ = '0.7.2'\n",
    "detectron2/_C.cpython-310-x86_64-linux-gnu.so": "machine code",
    "detectron2/_Common.py": "kept = True\n",
    "detectron2/model_zoo/configs/Base.yaml": "MODEL: {}\n",
    "tools/train_net.py": "raise SystemExit\n",
    f"{INFO}/LICENSE": "Apache License\n",
    f"{INFO}/METADATA": METADATA,
    f"{INFO}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: cp310-cp310-linux_x86_64\n",
    f"{INFO}/RECORD": "",
}


def write_wheel(path: Path, files: dict[str, str]) -> Path:
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


@pytest.fixture
def repacked(tmp_path: Path) -> Path:
    origin = write_wheel(tmp_path / detectron2_wheel.ORIGIN_FILE, FILES)
    return detectron2_wheel.repack(origin, tmp_path)


def read(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name).decode()


def test_compiled_extension_and_tools_are_gone_and_the_rest_is_unchanged(repacked: Path) -> None:
    assert repacked.name == "detectron2-0.7.2+nocompile-py3-none-any.whl"
    with zipfile.ZipFile(repacked) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == {
        "detectron2/__init__.py",
        "detectron2/_Common.py",
        "detectron2/model_zoo/configs/Base.yaml",
    }
    assert read(repacked, "detectron2/_Common.py") == FILES["detectron2/_Common.py"]


def test_metadata_name_the_origin_and_the_changes(repacked: Path) -> None:
    metadata = Parser().parsestr(read(repacked, f"{detectron2_wheel.DIST_INFO}/METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("detectron2", "0.7.2+nocompile")
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata.get_all("Requires-Dist") == [
        "Pillow>=7.1",
        "omegaconf<2.4,>=2.1",
        "numpy",
        "fvcore",
        "iopath",
        "torch",
        "torchvision",
    ]
    assert metadata.get_all("Provides-Extra") is None
    body = metadata.get_payload()
    for fact in ("sal-detectron2 0.7.2", detectron2_wheel.ORIGIN_SHA256, "a59f0563", "_C", "`tools`"):
        assert fact in body
    assert read(repacked, f"{detectron2_wheel.DIST_INFO}/LICENSE") == "Apache License\n"
    assert "Tag: py3-none-any\n" in read(repacked, f"{detectron2_wheel.DIST_INFO}/WHEEL")


def test_record_lists_every_file_with_its_hash_and_size(repacked: Path) -> None:
    record = f"{detectron2_wheel.DIST_INFO}/RECORD"
    rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(read(repacked, record)))}
    with zipfile.ZipFile(repacked) as archive:
        assert set(rows) == set(archive.namelist())
        assert rows.pop(record) == ["", ""]
        for name, (digest, size) in rows.items():
            data = archive.read(name)
            expected = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            assert (digest, size) == (f"sha256={expected}", str(len(data)))


def test_equal_input_gives_equal_bytes(repacked: Path, tmp_path: Path) -> None:
    first = repacked.read_bytes()
    detectron2_wheel.repack(tmp_path / detectron2_wheel.ORIGIN_FILE, tmp_path)
    assert repacked.read_bytes() == first
    assert not list(tmp_path.glob("*.part"))


def test_another_compiled_file_is_refused(tmp_path: Path) -> None:
    origin = write_wheel(tmp_path / "origin.whl", {**FILES, "detectron2/layers/fast.so": "machine code"})
    with pytest.raises(SetupError, match=r"origin\.whl holds detectron2/layers/fast\.so: compiled files"):
        detectron2_wheel.repack(origin, tmp_path)


def test_another_sha256_is_refused_with_both_values_and_a_way_out(tmp_path: Path) -> None:
    def serve_another_file(*arguments: str) -> None:
        assert arguments[-1] == "sal-detectron2==0.7.2"
        (tmp_path / detectron2_wheel.ORIGIN_FILE).write_bytes(b"abc")

    with pytest.raises(SetupError) as refusal:
        detectron2_wheel.fetch(tmp_path, serve_another_file)
    message = str(refusal.value)
    # sha256 of b"abc", from FIPS 180-2, appendix B.1
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in message
    assert detectron2_wheel.ORIGIN_SHA256 in message
    assert "PIP_INDEX_URL" in message


def test_half_a_download_is_fetched_again_and_a_whole_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def download(*arguments: str) -> None:
        nonlocal calls
        calls += 1
        (tmp_path / detectron2_wheel.ORIGIN_FILE).write_bytes(b"abc")

    monkeypatch.setattr(detectron2_wheel, "ORIGIN_SHA256", hashlib.sha256(b"abc").hexdigest())
    (tmp_path / detectron2_wheel.ORIGIN_FILE).write_bytes(b"ab")
    detectron2_wheel.fetch(tmp_path, download)
    detectron2_wheel.fetch(tmp_path, download)
    assert calls == 1


def test_an_index_with_another_build_is_named(tmp_path: Path) -> None:
    (tmp_path / "sal_detectron2-0.7.2-cp312-none-any.whl").touch()
    with pytest.raises(SetupError, match=r"which holds sal_detectron2-0\.7\.2-cp312-none-any\.whl"):
        detectron2_wheel.fetch(tmp_path, lambda *arguments: None)
