"""Say what a weights file is, write it in another format, search the public ones, publish those of a run.

    python tools/convert_checkpoint.py inspect FILE
    python tools/convert_checkpoint.py convert FILE --init-source mae --out backbone.safetensors
    python tools/convert_checkpoint.py list dinov2 --size base
    python tools/convert_checkpoint.py push RUN --licence apache-2.0 --to OWNER/NAME

`inspect` states what the file looks like and the command that loads it; nothing is guessed on load. `list` searches the
public checkpoints; without a word or flag it has all of them, and the formats.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from backbones.weights.declaration import (
    FORMATS,
    Changes,
    Family,
    Heads,
    InitialWeights,
    PixelMean,
    PixelStd,
    TableSize,
    TrustPickle,
)
from backbones.weights.hub import located
from backbones.weights.zoo_table import Search, aligned_table
from engine.launch import fail, parse
from files.naming import refuse_overwriting

File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]


Format = Annotated[str, tyro.conf.arg(help=f"Format to write: {', '.join(FORMATS)}.")]


@dataclass(frozen=True, kw_only=True)
class FileFlags:
    """What the user says of a weights file."""

    file: File
    """A weights file of any family, or its name (hf:OWNER/MODEL, timm:NAME.TAG, an https address)."""
    init_heads: Heads = None
    init_image_size: TableSize = None
    init_mean: PixelMean = None
    init_std: PixelStd = None
    trust_pickle: TrustPickle = False

    def declared(self, source: str = "own") -> InitialWeights:
        """Return it for those who read the file."""
        return located(
            InitialWeights(
                path=self.file,
                source=source,
                num_heads=self.init_heads,
                image_size=self.init_image_size,
                mean=self.init_mean,
                std=self.init_std,
                trust_pickle=self.trust_pickle,
            )
        )


@dataclass(frozen=True, kw_only=True)
class Inspect(FileFlags):
    """Say what a weights file looks like: contents, architecture, digests, the command to load it."""

    def run(self) -> None:
        """Say what the file is."""
        from backbones.weights.inspect import inspect_file

        found = inspect_file(self.declared())
        print("\n".join(found.lines()))
        if found.failure:
            raise ValueError(f"{self.file}: {found.failure}")


@dataclass(frozen=True, kw_only=True)
class Convert(FileFlags):
    """Write a weights file in another format."""

    init_source: Family = "own"
    out: Path
    """File to write; one that is there is replaced, but for FILE itself."""
    to: Format = "own"
    changes: tyro.conf.OmitArgPrefixes[Changes] = field(default_factory=Changes)
    """What becomes of the weights on the way."""

    def run(self) -> None:
        """Write the file in the other format."""
        from backbones.weights.convert import changed, write_as, written
        from backbones.weights.loader import by_rule
        from backbones.weights.read import read_checkpoint

        refuse_overwriting(written(self.to, self.out), [self.file])
        read = read_checkpoint(self.declared(self.init_source))
        checkpoint, lines = changed(read, self.changes)
        lines += write_as(checkpoint, self.to, self.out)
        print(f"{self.out}: {len(checkpoint.state)} tensors, format {self.to}")
        said = [*lines, *(f"left out {line}" for line in by_rule(read.dropped)), *(f"note: {n}" for n in read.notes)]
        print("".join(f"  {line}\n" for line in said), end="")


@dataclass(frozen=True, kw_only=True)
class List(Search):
    """Search the public checkpoints, or list all of them and the formats."""

    words: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="WORD")] = ()
    """Words that the row has, in any column (dinov2 base, "fine-tuned" imagenet-21k)."""

    def run(self) -> None:
        """Print what is found."""
        if self == List():
            from backbones.sources import SOURCES

            print("\n".join(f"{name}: {source.title}" for name, source in sorted(SOURCES.items())), end="\n\n")
        print(aligned_table(self.found()))


@dataclass(frozen=True, kw_only=True)
class Push:
    """Write the folder that a hub takes of a completed run, and upload it with --to."""

    run_folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder of a run that left backbone.safetensors."""
    licence: str
    """Licence of the weights as the hub names it: apache-2.0, mit, cc-by-nc-4.0, other."""
    seeds: tuple[Path, ...] = ()
    """Folders of the same run with other seeds: the card states mean and 95 % interval over all."""
    out: Path | None = None
    """Folder to write; RUN/hub unless given."""
    to: str | None = None
    """OWNER/NAME on the hub to upload to, by the token of HF_TOKEN or of `hf auth login`; absent uploads nothing."""
    private: bool = False
    """Make the model private where it is not there yet."""

    def run(self) -> None:
        """Write the folder, and send it where that was asked for."""
        from backbones.weights.upload import check_repository, upload
        from benchmark.compare.fairness import repeats_of
        from engine.runs.publish import completed, write_folder
        from mae_transfer.tasks import TASKS

        if self.to is not None:
            check_repository(self.to)
        out = self.out or self.run_folder / "hub"
        run, *others = ((folder, completed(folder, TASKS)) for folder in (self.run_folder, *self.seeds))
        made = write_folder(
            self.run_folder, TASKS, out=out, licence=self.licence, name=self.to, others=repeats_of(run, others)
        )
        print(f"{out}: {', '.join(path.name for path in made.files)}")
        print("".join(f"  {line}\n" for line in made.lines), end="")
        source = " --init-source timm" if made.timm else ""
        if self.to is None:
            print(f"to use it: --init {made.files[0]}{source}")
        else:
            print(f"uploaded; to use it: --init {upload(made.files, self.to, private=self.private)}{source}")


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed."""
    command = parse(Inspect | Convert | List | Push, argv, doc=__doc__)  # type: ignore[arg-type]
    try:
        command.run()
    except (ValueError, OSError) as error:
        return fail(error)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
