"""What is cached is made once, vouched for by checksums, and made again where it is not as it was written."""

from pathlib import Path

import numpy as np
import pytest

from engine.feature_cache import cached, digest_of, open_array, read_list, write_list

ARRAYS = ("one.npy", "two.npy")


def test_made_once_and_again_where_damaged(tmp_path: Path) -> None:
    folder, made = tmp_path / "key", []

    def make() -> None:
        made.append(1)
        for name in ARRAYS:
            np.save(folder / name, np.arange(3, dtype=np.float16))
        write_list(folder, {"ids": ["a"]}, ARRAYS)

    def read() -> list[str]:
        listed = read_list(folder, {"ids": list}, ARRAYS)
        assert open_array(folder / "one.npy", (3,), np.float16).tolist() == [0, 1, 2]
        ids: list[str] = listed["ids"]
        return ids

    assert cached(folder, read=read, make=make) == cached(folder, read=read, make=make) == ["a"] and len(made) == 1
    content = bytearray((folder / "two.npy").read_bytes())
    content[-1] ^= 1
    (folder / "two.npy").write_bytes(content)
    with pytest.warns(UserWarning, match="extracted again: .*two.npy: its content does not have the checksum"):
        assert cached(folder, read=read, make=make) == ["a"]
    assert len(made) == 2
    with pytest.raises(ValueError, match=r"one.npy: float16 of shape \(3,\) for float16 of \(4,\)"):
        open_array(folder / "one.npy", (4,), np.float16)


def test_digest_follows_texts_and_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    first = digest_of(["w"], [("a", tmp_path / "a")])
    assert first == digest_of(["w"], [("a", tmp_path / "a")]) and len(first) == 16
    assert first != digest_of(["v"], [("a", tmp_path / "a")]) and first != digest_of(["w"], [("b", tmp_path / "a")])
    (tmp_path / "a").write_text("ab")
    assert first != digest_of(["w"], [("a", tmp_path / "a")])
