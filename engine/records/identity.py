"""Which run a folder belongs to: written at its start, compared when it is resumed."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from engine.config import NOT_IDENTITY, differences, with_defaults
from engine.records import version1
from engine.records.metrics_file import CSV_NAME
from engine.records.record import IDENTITY_NAME, PICTURES, RECORD_NAME, SCHEMA_VERSION, TENSORBOARD, check_version
from engine.task import Facts
from engine.training.processes import processes
from engine.training.resume import FOLDER, checkpoints
from files.digest import sealed, unsealed
from files.naming import inside
from files.parsing import read_json
from files.writing import replacing

COUNTED = "counted"  # which of NOT_IDENTITY are part of what this run is
VERSION = "schema_version"  # of the words of a configuration, which is no part of what a run is
# what a run reads again, adds to or writes into; all else is replaced as a whole
WRITTEN_TO = (IDENTITY_NAME, RECORD_NAME, CSV_NAME, FOLDER, PICTURES, TENSORBOARD)


def identity_of(recipe: str, config: dict[str, Any], facts: Facts) -> dict[str, Any]:
    """Return what makes a run what it is: recipe, configuration, initial weights and data."""
    return {
        "recipe": recipe,
        "config": config,
        "weights": facts.weights.sha256,
        "data": {
            "train_split": facts.train_split,
            "val_split": facts.val_split,
            "train_images": facts.train_images,
            "val_images": facts.val_images,
            **facts.extra,
        },
        **({COUNTED: list(facts.counted)} if facts.counted else {}),
    }


def run_id(identity: dict[str, Any]) -> str:
    """Return 16 hexadecimal digits of what makes a run what it is, leaving out what may change on resumption."""
    text = json.dumps(_essential(identity, identity.get(COUNTED, ())), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_identity(out: Path, identity: dict[str, Any]) -> None:
    """Write `out/config.json`, with the version of its words and the digest of its content."""
    with replacing(out / IDENTITY_NAME) as temporary:
        temporary.write_text(
            json.dumps(sealed({**_plain(identity), VERSION: SCHEMA_VERSION}), indent=1) + "\n", encoding="utf-8"
        )


def read_identity(path: Path) -> dict[str, Any]:
    """Return what `write_identity` was given, in today's words. Raises OSError, or ValueError that names the file."""
    identity = read_json(path, surrogates=True)
    if not isinstance(identity, dict):
        raise ValueError(f"{path}: holds no JSON object, so it is no configuration of a run.")
    found = unsealed(identity, str(path))
    version = found.pop(VERSION, version1.VERSION)
    try:
        check_version(version)
    except ValueError as error:
        raise ValueError(f"{path}: not a readable configuration ({error}).") from error
    if version == version1.VERSION and "config" in found:
        found["config"] = version1.config_of_today(found["config"])
    return {**found, "config": version1.without_left_out(found["config"])} if "config" in found else found


def check_folder(out: Path, identity: dict[str, Any], *, resume: bool, config: Any = None) -> None:
    """Raise ValueError where `out` is no folder, or holds another run than the one to be resumed, or links out of it.

    A field of `config`, the dataclass in `identity`, that the run was begun without counts as its default.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file; --out names a folder.")
    for name in WRITTEN_TO:
        inside(out, name, source=out)
    path, saved = out / IDENTITY_NAME, checkpoints(out)
    if not path.exists():
        if saved:
            raise ValueError(
                f"{out}: holds checkpoints ({saved[-1].name}) without {IDENTITY_NAME}, so nobody can tell of which run "
                f"they are; put its {IDENTITY_NAME} back, or give another --out."
            )
        return
    if not resume:
        raise ValueError(
            f"{out}: holds a run already ({IDENTITY_NAME}); give another --out, or add --resume to continue it."
        )
    try:
        old = read_identity(path)
    except ValueError as error:
        raise ValueError(
            f"{error} The folder cannot be resumed without it; restore it, or give another --out."
        ) from error
    if config is not None and isinstance(old.get("config"), dict):
        old = _plain({**old, "config": with_defaults(old["config"], config)})
    if found := differences(old, _plain(identity), without={COUNTED}, counted=set(identity.get(COUNTED, ()))):
        raise ValueError(
            f"{out}: holds a run with another configuration, so it cannot be resumed with this one: "
            f"{'; '.join(found)}. Repeat its flags, or give another --out.{_of_micro_batches(old, config)}"
        )


def _of_micro_batches(old: dict[str, Any], config: Any) -> str:
    """Return what to give where the number of micro-batches is another, which --max-per-device makes of the processes.

    It stays what it was: what is drawn, or compared, within a micro-batch depends on it.
    """
    values = old.get("config")
    run = values.get("run") if isinstance(values, dict) else None
    then = run.get("accumulate") if isinstance(run, dict) else None
    if config is None or not isinstance(then, int) or then < 1 or then == config.run.accumulate:
        return ""
    batch, now, world = config.run.batch_size, config.run.accumulate, processes()
    why = f" With --max-per-device accumulate follows from the processes ({now} with {world}), and the run has {then}"
    if batch % (then * world):
        return f"{why}: resume it with a number of processes that divides {batch // then}, and --accumulate {then}."
    each, asked = batch // (then * world), batch // (now * world)
    return (
        f"{why}: give --accumulate {then} in its place. A device then takes {each} images at once, not {asked}: about "
        f"{each / asked:.2g} times the memory of activations."
    )


def _plain(identity: dict[str, Any]) -> dict[str, Any]:
    """Return it as JSON gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def _essential(value: Any, counted: Collection[str]) -> Any:
    if isinstance(value, dict):
        left_out = NOT_IDENTITY.difference(counted)
        return {name: _essential(item, counted) for name, item in value.items() if name not in left_out}
    return value
