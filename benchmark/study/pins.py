"""Weights by name in a study: the commit that the first run found is the one of all its runs, also when it goes on.

`OUT/weights.json` keeps, of every name in the study's file, the name with its commit and the file's SHA-256.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from backbones.weights.compared import compared_digest
from backbones.weights.hub import find, is_remote, parse
from files.digest import file_sha256
from files.parsing import read_json
from files.writing import replacing

PINS = "weights.json"


def pinned(out: Path, names: Iterable[str], *, fetch: bool) -> dict[str, Path]:
    """Return the file of each name that is weights by name: of the commit that `out` keeps, where it keeps one.

    With `fetch` a name without one is found and kept. Without it such a name is left out.

    Raises ValueError where a file is not what was kept of it, and what finding raises.
    """
    wanted = sorted({name for name in names if is_remote(name)})
    kept = _kept(out / PINS)
    files: dict[str, Path] = {}
    if not fetch:
        for name in kept.keys() & set(wanted):
            with suppress(ValueError):  # of what is gone from the cache a run will say it
                files[name] = find(parse(kept[name]["name"])).path
        return files
    for name in wanted:
        found = find(parse(kept[name]["name"] if name in kept else name))
        files[name] = found.path
        digest = compared_digest(found.path) or file_sha256(found.path)
        if name in kept and kept[name]["sha256"] != digest:
            raise ValueError(
                f"{out / PINS}: {name} was a file of sha256 {kept[name]['sha256'][:12]} when the study began, and is "
                f"one of {digest[:12]} now; give another --out, or bring the file of then."
            )
        kept[name] = {"name": found.name, "sha256": digest}
    if wanted:
        out.mkdir(parents=True, exist_ok=True)
        with replacing(out / PINS) as temporary:
            temporary.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return files


def _kept(path: Path) -> dict[str, dict[str, str]]:
    if not path.is_file():
        return {}
    values = read_json(path)
    well = isinstance(values, dict) and all(
        isinstance(value, Mapping) and value.keys() == {"name", "sha256"} for value in values.values()
    )
    if not well:
        raise ValueError(f"{path}: not what a study keeps of its weights; remove it, and they are looked for anew.")
    return {name: dict(value) for name, value in values.items()}
