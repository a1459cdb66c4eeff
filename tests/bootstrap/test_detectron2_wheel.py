"""The repacked detectron2 wheel: what it holds, what it says of itself, and what is refused."""

from __future__ import annotations

import base64
import csv
import functools
import hashlib
import io
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from bootstrap import detectron2_wheel
from bootstrap.installer import SetupError, run_pip

INFO = "sal_detectron2-0.7.2.dist-info"
FILES = {
    "detectron2/__init__.py": "__version__ = '0.7.2'\n",
    "detectron2/_C.cpython-310-x86_64-linux-gnu.so": "machine code",
    "detectron2/_Common.py": "kept = True\n",
    "detectron2/model_zoo/configs/Base.yaml": "MODEL: {}\n",
    "tools/train_net.py": "raise SystemExit\n",
    f"{INFO}/LICENSE": "Apache License\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: sal-detectron2\nVersion: 0.7.2\nRequires-Dist: numpy<2\n",
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
    needed = metadata.get_all("Requires-Dist") or []
    assert {"numpy", "fvcore", "iopath", "torch", "torchvision", "omegaconf<2.4,>=2.1"} <= {*needed}
    assert "black" not in needed and len(needed) == 17
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


def test_another_sha256_is_refused_with_a_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, folder = tmp_path / "index", tmp_path / "wheels"
    index.mkdir()
    folder.mkdir()
    write_wheel(index / detectron2_wheel.ORIGIN_FILE, FILES)  # another file under the name that was reviewed
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    pip = functools.partial(run_pip, Path(sys.executable), tmp_path / "setup.log")
    with pytest.raises(SetupError, match=r"pip download failed .* not the one that was reviewed .*PIP_INDEX_URL"):
        detectron2_wheel.fetch(folder, pip)
    assert detectron2_wheel.ORIGIN_SHA256 in (tmp_path / "setup.log").read_text()
    assert not list(folder.glob("*.whl"))


def test_half_a_download_is_fetched_again_and_a_whole_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, folder = tmp_path / "index", tmp_path / "wheels"
    index.mkdir()
    folder.mkdir()
    whole = write_wheel(index / detectron2_wheel.ORIGIN_FILE, FILES).read_bytes()
    monkeypatch.setattr(detectron2_wheel, "ORIGIN_SHA256", hashlib.sha256(whole).hexdigest())
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    calls = []

    def pip(*arguments: str) -> None:
        calls.append(arguments)
        run_pip(Path(sys.executable), tmp_path / "setup.log", *arguments)

    (folder / detectron2_wheel.ORIGIN_FILE).write_bytes(whole[:-1])
    assert detectron2_wheel.fetch(folder, pip).read_bytes() == whole
    detectron2_wheel.fetch(folder, pip)
    assert len(calls) == 1
