"""The catalogue of public checkpoints for people: the table of the page, and the rows that a search finds."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from backbones.weights.zoo import public_checkpoints
from backbones.weights.zoo_entry import HALF, OPENAI_CLIP, SATELLITE, PublicCheckpoint

NEAR = 5  # names that a search without a result shows
COLUMNS = (
    *("family", "architecture", "px", "contents", "normalised target", "data", "labels", "epochs", "mean; std"),
    *("licence", "arXiv"),
)
UNKNOWN, UNSTATED = "unknown", "not stated"


@dataclass(frozen=True, kw_only=True)
class Search:
    """What is looked for among the public checkpoints; all of it must fit. Case and punctuation do not matter."""

    words: tuple[str, ...] = ()
    """Words that the row has, in any column (dinov2 base, "fine-tuned imagenet-21k")."""
    family: str | None = None
    """Family as --init-source has it, or as the name says (mae, augreg, clip, siglip, dinov2, deit3)."""
    size: str | None = None
    """Size of the ViT: tiny, small, base, large, huge, giant; with patches as base_patch16."""
    data: str | None = None
    """What it was trained on, or a part of it (imagenet-1k, webli)."""
    licence: str | None = None
    """Licence, or a part of it; "not stated" for those without one."""

    def _wanted(self) -> list[tuple[str, str]]:
        named = [(name, value) for name in ("family", "size", "data", "licence") if (value := getattr(self, name))]
        return [*named, *(("word", word) for word in self.words)]

    def found(self) -> list[PublicCheckpoint]:
        """Return the entries that fit, in the catalogue's order.

        Raises ValueError where none does: what of it no entry has, the values that there are, and near names.
        """
        wanted, entries = self._wanted(), public_checkpoints()
        found = [entry for entry in entries if all(_fits(entry, *one) for one in wanted)]
        if found:
            return found
        said = []
        for kind, value in wanted:
            if any(_fits(entry, kind, value) for entry in entries):
                continue
            known = sorted({text for entry in entries for text in _values(entry, kind)})
            there = "" if kind == "word" else f"; there are: {', '.join(known)}"
            said.append(f"no public checkpoint has the {kind} {value!r}{there}")
        reason = ". ".join(said) or "no public checkpoint fits all of it"
        raise ValueError(f"{reason}. Near: {', '.join(entry.typed for entry in self._near())}.")

    def _near(self) -> list[PublicCheckpoint]:
        """Return the entries that meet most of it, of these those whose words are most alike."""
        wanted = self._wanted()

        def score(entry: PublicCheckpoint) -> tuple[int, float]:
            words = _words(" ".join((entry.typed, *cells(entry))))
            alike = sum(
                max(difflib.SequenceMatcher(None, _plain(value), word).ratio() for word in words) for _, value in wanted
            )
            return sum(_fits(entry, *one) for one in wanted), alike

        return sorted(public_checkpoints(), key=score, reverse=True)[:NEAR]


def cells(entry: PublicCheckpoint) -> tuple[str, ...]:
    """Return the facts of an entry as texts, in the order of COLUMNS."""
    return (
        entry.source,
        entry.architecture,
        str(entry.image_size),
        entry.contents,
        entry.normalised_target or UNKNOWN,
        entry.images,
        entry.labels,
        UNKNOWN if entry.epochs is None else str(entry.epochs),
        {HALF: "0.5; 0.5", OPENAI_CLIP: "CLIP", SATELLITE: "SAT-493M"}.get((entry.mean, entry.std), "ImageNet"),
        entry.licence or UNSTATED,
        entry.paper,
    )


def aligned_table(entries: Sequence[PublicCheckpoint]) -> str:
    """Return a row for each entry, and how many there are; the name that `--init` takes is last, for it is long."""
    rows = [(*COLUMNS, "name"), *((*cells(entry), entry.typed) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = [
        "  ".join([*(f"{text:<{width}}" for text, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    return "\n".join([*lines, f"{len(entries)} of {len(public_checkpoints())} public checkpoints"])


def markdown_table() -> str:
    """Return the table of all entries as the page has it."""
    heads = ("file, or name to type", *COLUMNS, "md5", "published")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for entry in public_checkpoints():
        name = entry.name if entry.typed == entry.url else entry.typed
        published = "; ".join(f"{each.what} {each.value:g} ({each.source})" for each in entry.published)
        md5 = "" if entry.md5 is None else f"{entry.md5}..."
        lines.append(f"| {' | '.join((f'[{name}]({entry.url})', *cells(entry), md5, published))} |")
    return "\n".join([*lines, ""])


def _fits(entry: PublicCheckpoint, kind: str, value: str) -> bool:
    plain = _plain(value)
    if kind == "word":
        return any(plain in _plain(text) for text in (entry.typed, *cells(entry)))
    if kind == "size":
        name = entry.architecture.removeprefix("vit_")
        return name == value.lower() or name.startswith(f"{value.lower()}_")
    if kind == "family":
        return plain == _plain(entry.source) or plain in _words(entry.name)
    return any(plain in _plain(text) for text in _values(entry, kind))


def _values(entry: PublicCheckpoint, kind: str) -> list[str]:
    """Return what an entry has that a part of a search is compared with."""
    return {
        "family": [entry.source],
        "size": [entry.architecture.removeprefix("vit_")],
        "data": [entry.images],
        "licence": [entry.licence or UNSTATED],
        "word": [],
    }[kind]


def _plain(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.lower())


def _words(text: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", text.lower()) if word]
