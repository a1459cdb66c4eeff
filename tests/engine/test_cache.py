"""Where what was read of large data is kept."""

from pathlib import Path

import pytest

from engine.cache import cache_folder


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_TRANSFER_CACHE", "/explicit")
    assert cache_folder() == Path("/explicit")
    monkeypatch.delenv("MAE_TRANSFER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/mae-transfer")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mae-transfer"
