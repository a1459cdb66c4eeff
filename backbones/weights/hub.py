"""Weights by name: a model of the Hugging Face hub, one of timm's, or a file at an address.

    hf:OWNER/MODEL          the newest revision       hf:OWNER/MODEL@REVISION        that one (a commit, tag or branch)
    hf:OWNER/MODEL/FILE     a file of several         timm:NAME.TAG[@REVISION]       hf:timm/NAME.TAG
    https://HOST/FILE       as it is there

Everything goes through huggingface_hub: its cache, its progress, its token. A file is compared with the digest that is
published when it arrives. What was found is stated as a name with the commit, so that it can be had again. No code of a
repository is run or downloaded: weights, `config.json`, `preprocessor_config.json` and `open_clip_config.json` are all
that is taken.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from backbones.weights.address import address_of, fetched
from backbones.weights.compared import compared_digest, mark_compared
from backbones.weights.declaration import InitialWeights
from backbones.weights.snapshot import COMMIT, Snapshot, beside, snapshot_of
from backbones.weights.zoo import find_public, public_checkpoints
from backbones.weights.zoo_entry import PublicCheckpoint
from files.digest import file_sha256

NAMES = ("hf:", "timm:", "https://", "http://")
ENDINGS = (".safetensors", ".bin", ".pth", ".pt", ".pth.tar", ".npz", ".pkl")
USUAL = ("model.safetensors", "backbone.safetensors", "pytorch_model.bin")
TIMEOUT = 10.0  # seconds until the hub counts as absent
ATTEMPTS = 4  # of a question to a busy hub
LONGEST_WAIT = 60.0  # seconds between two
T = TypeVar("T")
_PART = re.compile(r"[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A name of weights, as it was given."""

    text: str
    repository: str | None = None
    """OWNER/MODEL on the hub; None of an address."""
    revision: str | None = None
    file: str | None = None
    """The file of the repository, where it is named."""

    @property
    def page(self) -> str:
        """Where people find it."""
        return f"{endpoint()}/{self.repository}" if self.repository else self.text

    def at(self, commit: str, file: str) -> str:
        """Return the name that states what was found."""
        named = "" if file in USUAL and self.file is None else f"/{file}"
        return f"hf:{self.repository}{named}@{commit}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file of weights on this machine."""

    path: Path
    """In the cache; what the publisher keeps beside it, `config.json` for one, lies beside it."""
    name: str
    """How it can be had again: a name with its commit, or the address."""


def is_remote(named: str | Path) -> bool:
    """Whether a text names weights elsewhere rather than a file here; as a path too, of which flags are."""
    return _text(named).startswith(NAMES)


def located(declared: InitialWeights) -> InitialWeights:
    """Return a declaration of weights by name as one of the file that they are in, any other as it is.

    The family of a known name is the catalogue's, unless another than `own` is declared. What was found is printed
    once. Raises as `parse` and `find`.
    """
    if not is_remote(declared.path):
        return declared
    remote = parse(_text(declared.path))
    found, family = find(remote), family_of(remote)
    if os.environ.get("RANK", "0") == "0":
        print(f"{remote.text}: {found.name} is {found.path}", flush=True)
    source = family if declared.source == "own" and family is not None else declared.source
    return replace(declared, path=found.path, source=source)


def family_of(remote: Remote) -> str | None:
    """Return the family of a name that the catalogue knows, `timm` of any other of timm's; None of another."""
    entry = _entry(remote)
    if entry is not None:
        return entry.source
    return "timm" if remote.repository is not None and remote.repository.startswith("timm/") else None


def catalogued(named: str | Path) -> PublicCheckpoint | None:
    """Return the catalogue's entry of a name, whatever its revision, or of a file here by its own name; else None.

    Raises ValueError as `parse`.
    """
    return _entry(parse(_text(named))) if is_remote(named) else find_public(Path(named).name)


def _entry(remote: Remote) -> PublicCheckpoint | None:
    found = (e for e in public_checkpoints() if remote.repository == e.name or remote.text == e.url)
    return next(found, None)


def name_of(path: Path) -> str | None:
    """Return the name, with its commit, of a file that lies in the hub's cache or came from an address; else None."""
    if (address := address_of(path)) is not None:
        return address
    for folder in path.parents:
        if folder.parent.name == "snapshots" and COMMIT.fullmatch(folder.name):
            kind, *names = folder.parent.parent.name.split("--")
            if kind == "models" and len(names) == 2:
                repository, file = "/".join(names), str(path.relative_to(folder))
                listed = Snapshot(repository=repository, commit=folder.name).listing() or []
                usual = next((name for name in USUAL if name in listed), None)  # what is meant where no file is named
                named = None if usual == file else file
                return Remote(text="", repository=repository, file=named).at(folder.name, file)
    return None


def parse(text: str) -> Remote:
    """Return the name that a text is. Raises ValueError for one that is none, with the form that it should have."""
    if text.startswith(("https://", "http://")):
        try:
            host = urlsplit(text).netloc
        except ValueError:
            host = ""
        if not host or not Path(urlsplit(text).path).name or text.endswith("/"):
            raise ValueError(f"{text}: no address of a file; it should be https://HOST/PATH/FILE.")
        return Remote(text=text)
    kind, _, rest = text.partition(":")
    rest, _, revision = rest.partition("@")
    parts = (f"timm/{rest}" if kind == "timm" else rest).split("/", 2)
    if kind not in ("hf", "timm") or len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts[:2]):
        raise ValueError(f"{text}: no name of a model; it should be hf:OWNER/MODEL[@REVISION] or timm:NAME.TAG.")
    if "@" in text and not revision:
        raise ValueError(f"{text}: nothing follows the @; it is a revision: a commit, a tag or a branch.")
    file = parts[2] if len(parts) == 3 else None
    if file is not None and (file.startswith("/") or ".." in file.split("/")):
        raise ValueError(f"{text}: {file!r} is no file of a repository.")
    return Remote(text=text, repository="/".join(parts[:2]), revision=revision or None, file=file)


def find(remote: Remote) -> Found:
    """Return the file on this machine, downloaded where it is not in the cache.

    Raises ValueError that says what is missing and what to do: no such model, revision or file, a token that is wanted,
    several files to choose from, no route to the hub, a download that is not what was published.
    """
    return _of_hub(remote) if remote.repository is not None else _of_address(remote.text)


def _of_hub(remote: Remote) -> Found:
    from huggingface_hub import HfApi, hf_hub_download

    repository, wanted = str(remote.repository), remote.revision or "main"
    if COMMIT.fullmatch(wanted) and (cached := _cached(remote, Snapshot(repository=repository, commit=wanted))):
        return cached
    with _explained(remote):
        try:
            info = _patiently(
                lambda: HfApi(endpoint=endpoint()).model_info(
                    repository, revision=wanted, files_metadata=True, timeout=TIMEOUT
                )
            )
        except Exception as error:
            if is_unreachable(error) and (cached := _without_hub(remote, wanted)) is not None:
                return cached
            raise
        published = {item.rfilename: item.lfs.sha256 if item.lfs else None for item in info.siblings or ()}
        snapshot = Snapshot(repository=repository, commit=str(info.sha))
        snapshot.keep_listing(published)
        file = _chosen(remote, list(published))
        for name in beside(file, published):
            hf_hub_download(repository, name, revision=snapshot.commit, endpoint=endpoint())
        # by the revision that was asked for, so that it is found without the hub too
        path = Path(hf_hub_download(repository, file, revision=wanted, endpoint=endpoint()))
        if _commit_of(path, file) != snapshot.commit:  # it moved in this moment
            path = Path(hf_hub_download(repository, file, revision=snapshot.commit, endpoint=endpoint()))
    digest = published[file]
    if digest is not None and compared_digest(path) != digest:
        _compare(path, digest, remote)
        mark_compared(path)
    return Found(path=path, name=remote.at(snapshot.commit, file))


def _patiently(ask: Callable[[], T]) -> T:
    """Return what `ask` returns, asked again where the hub is busy (429), after as long as it says."""
    from huggingface_hub import errors

    for attempt in range(ATTEMPTS):
        try:
            return ask()
        except errors.HfHubHTTPError as error:
            if error.response.status_code != 429 or attempt == ATTEMPTS - 1:
                raise
            said = error.response.headers.get("Retry-After", "")
            time.sleep(min(float(said) if said.isdigit() else 2.0**attempt, LONGEST_WAIT))
    raise AssertionError("every attempt returns or raises")


def _cached(remote: Remote, snapshot: Snapshot) -> Found | None:
    """Return what the cache holds of a commit where that is known to be all that is wanted, else None."""
    published = snapshot.listing()
    if published is None:
        return None
    file = _chosen(remote, published)
    if not all((snapshot.folder / name).is_file() for name in (file, *beside(file, published))):
        return None
    return Found(path=snapshot.folder / file, name=remote.at(snapshot.commit, file))


def _without_hub(remote: Remote, wanted: str) -> Found | None:
    """Return what the cache holds of a revision; of files whose model was never listed, the one that is named.

    Raises ValueError where the cache holds a part of what is wanted, and it cannot be known which or how it is read.
    """
    snapshot = snapshot_of(str(remote.repository), wanted)
    if snapshot is None:
        return None
    if (cached := _cached(remote, snapshot)) is not None:
        return cached
    held, published = snapshot.held(), snapshot.listing()
    if published is not None:
        file = _chosen(remote, published)
        missing = [name for name in beside(file, published) if name not in held]
        if file not in held or not missing:
            return None
        raise ValueError(
            f"{remote.text}: the cache has {file} without {', '.join(missing)}, which say how it is read, and the hub "
            f"is not reached; fetch it once with a route, or give --init {snapshot.folder / file} with --init-source, "
            "--init-mean and --init-std."
        )
    if remote.file in held:
        return Found(path=snapshot.folder / str(remote.file), name=remote.at(snapshot.commit, str(remote.file)))
    weights = [name for name in held if name.endswith(ENDINGS)]
    if not weights or remote.file is not None:
        return None
    raise ValueError(
        f"{remote.text}: the cache has {_some(weights)} of commit {snapshot.commit[:12]}, but not the list of the "
        "model's files, which says whether that is its weights, and the hub is not reached; name the file that is "
        f"meant: hf:{remote.repository}/{weights[0]}@{snapshot.commit}."
    )


def _chosen(remote: Remote, names: Sequence[str]) -> str:
    """Return which file of a repository holds the weights."""
    if remote.file is not None:
        if remote.file not in names:
            raise ValueError(f"{remote.text}: there is no such file in it; it has {_some(names)}.")
        return remote.file
    if usual := next((name for name in USUAL if name in names), None):
        return usual
    weights = [name for name in names if name.endswith(ENDINGS)]
    if any(name.endswith(".index.json") for name in names) and weights:
        raise ValueError(f"{remote.text}: its weights are in several parts, which are not read; convert them first.")
    if len(weights) != 1:
        many = "several files may be its weights" if weights else "it holds no file of weights"
        raise ValueError(f"{remote.text}: {many} ({_some(weights or names)}); name one, as hf:OWNER/MODEL/FILE.")
    return weights[0]


def _commit_of(path: Path, file: str) -> str:
    return path.parents[len(Path(file).parts) - 1].name


def _compare(path: Path, sha256: str, remote: Remote) -> None:
    """Raise ValueError, and take the file out of the cache, where it is not what was published."""
    found = file_sha256(path)
    if found != sha256:
        with suppress(OSError):
            path.resolve().unlink()
        with suppress(OSError):
            path.unlink()
        raise ValueError(
            f"{remote.text}: what arrived is not what was published (sha256 {found[:12]}, {sha256[:12]} is stated); it "
            "was removed. Try again; if it stays so, the publisher's file is damaged."
        )


def _of_address(url: str) -> Found:
    """Return the file at an address."""
    with _explained(Remote(text=url)):
        return Found(path=fetched(url), name=url)


@contextmanager
def _explained(remote: Remote) -> Iterator[None]:
    """Say of what the server answers what it means and what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HfHubHTTPError as error:
        raise ValueError(f"{remote.text}: {_meaning(remote, error)}") from error
    except Exception as error:
        if not is_unreachable(error):
            raise
        raise ValueError(f"{remote.text}: {_what_to_bring(remote, error)}") from error


def _meaning(remote: Remote, error: Any) -> str:
    """Return what an answer of the hub means, and what to do."""
    from huggingface_hub import errors

    if is_unreachable(error):
        return _what_to_bring(remote, error)
    if remote.repository is not None and isinstance(error, errors.GatedRepoError):
        return (
            f"its publisher asks for consent. Accept the terms at {remote.page}, make a token at "
            f"{endpoint()}/settings/tokens, and give it as HF_TOKEN."
        )
    if remote.repository is not None and isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub has no such model, or a private one. Look for the name at {endpoint()}/models; of a private one "
            "give a token that may read it as HF_TOKEN."
        )
    if remote.repository is not None and isinstance(error, errors.RevisionNotFoundError):
        return f"the model has no revision {remote.revision}; see {remote.page}."
    return f"the server answered {error.response.status_code} ({one_line(error)})."


def _what_to_bring(remote: Remote, error: BaseException) -> str:
    return (
        f"it is not in the cache, and the server is not reached ({one_line(error)}). On a machine with a route, "
        f"download the weights and what is beside them from {remote.page}; here give --init FILE and --init-source "
        "FAMILY."
    )


def is_unreachable(error: BaseException) -> bool:
    """Whether an exception means that nothing answers, or that nothing may be asked."""
    from huggingface_hub import errors

    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, errors.HfHubHTTPError):
        return error.response is not None and error.response.status_code in (500, 502, 503, 504)
    unreachable = {
        "OfflineModeIsEnabled",
        "LocalEntryNotFoundError",
        "TransportError",
        "NetworkError",
        "TimeoutException",
    }
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & unreachable)


def endpoint() -> str:
    """Return the address of the hub, or of its mirror."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _text(named: str | Path) -> str:
    """Return a name as it was typed: a path has one slash where an address has two."""
    return re.sub(r"^(https?):/?(?!/)", r"\1://", str(named))


def one_line(error: BaseException) -> str:
    """Return what an exception says, short and in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:200]


def _some(names: Sequence[str], most: int = 8) -> str:
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) + rest) or "no file"
