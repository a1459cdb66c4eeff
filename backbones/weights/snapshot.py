"""What the hub's cache holds of a model at one commit, and whether that is all of it.

A folder of the cache holds the files that somebody asked for, or those that came before a connection broke. Which files
the model has is known from the hub alone. What it lists at a commit never changes, so it is kept: as
`models--OWNER--MODEL/mae-transfer/COMMIT.json` in the cache, which goes where the cache is copied to.
"""

import json
import re
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from files.parsing import read_json
from files.writing import replacing

COMMIT = re.compile(r"[0-9a-f]{40}")
LISTINGS = "mae-transfer"
BESIDE = ("config.json", "preprocessor_config.json", "open_clip_config.json")


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A model of the hub at one commit, in the cache."""

    repository: str
    """OWNER/MODEL."""
    commit: str

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return _folder(self.repository) / "snapshots" / self.commit

    def held(self) -> list[str]:
        """Return the names of the files that are there."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def keep_listing(self, published: Iterable[str]) -> None:
        """Keep the names of the files that the hub lists. Where nothing can be kept the hub is asked again."""
        with suppress(OSError):
            self._listing.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._listing) as temporary:
                temporary.write_text(json.dumps(list(published), indent=1) + "\n", encoding="utf-8")

    def listing(self) -> list[str] | None:
        """Return the names that were kept, None where nothing was, or nothing that can be read."""
        with suppress(OSError, ValueError):
            found = read_json(self._listing)
            if isinstance(found, list) and all(isinstance(name, str) for name in found):
                return found
        return None

    @property
    def _listing(self) -> Path:
        return _folder(self.repository) / LISTINGS / f"{self.commit}.json"


def snapshot_of(repository: str, revision: str) -> Snapshot | None:
    """Return the snapshot of a commit, or of a tag or branch as it was when the hub was last asked; else None."""
    if COMMIT.fullmatch(revision):
        return Snapshot(repository=repository, commit=revision)
    ref = _folder(repository) / "refs" / revision
    if not ref.is_file():
        return None
    return Snapshot(repository=repository, commit=ref.read_text(encoding="utf-8").strip())


def beside(file: str, published: Collection[str]) -> list[str]:
    """Return the files that the publisher keeps beside a file of weights and that say how it is read."""
    return [name for each in BESIDE if (name := str(Path(file).with_name(each))) in published]


def _folder(repository: str) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
