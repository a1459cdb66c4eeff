"""The site's generated pages, and its links between files of the repository; `make check` builds it, strict."""

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from mae_transfer.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_pages", ROOT / "docs" / "site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_between_files_become_links_between_pages(site: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = {"README.md": "index.md", "docs/a.md": "a.md", "studies/s/README.md": "studies/s.md", "docs/p.png": "p.png"}
    monkeypatch.setattr(site, "_pages", pages)

    def on(uri: str, text: str) -> str:
        page: Any = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
        made: str = site.on_page_markdown(text, page, None, None)
        return made

    assert on("index.md", "[x](docs/a.md#b) ![p](docs/p.png)") == "[x](a.md#b) ![p](p.png)"
    assert on("a.md", "[s](../studies/s/README.md) [i](../README.md)") == "[s](studies/s.md) [i](index.md)"
    assert on("studies/s.md", "[a](../../docs/a.md)") == "[a](../a.md)"
    assert on("a.md", "[w](../perf/x.py) [u](https://b.c) [h](#d)") == "w [u](https://b.c) [h](#d)"


def test_all_recipes_are_on_their_page(site: ModuleType) -> None:
    page = site._recipes()
    for spec in TASKS.values():
        assert all(f"### `{name}`" in page for name in spec.recipes)
    assert "83.6 % after fine-tuning (MAE, table 3" in page
    assert "* bfloat16 autocast where the device has it" in page
    assert "```\npython tools/train_seg.py small --data DIR" in page


def test_a_module_of_the_reference(site: ModuleType) -> None:
    page = site._reference("metrics")
    assert "::: metrics.miou" in page and "_" not in page.replace("show_submodules", "").split("# metrics")[0]
