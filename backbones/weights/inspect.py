"""What a weights file looks like: evidence for people, who declare the source; no load relies on it."""

import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from backbones.config import FAMILY, ViTConfig
from backbones.position import sincos_table
from backbones.relative_position import CLASS_ROWS
from backbones.sources import SOURCES
from backbones.sources.source import DECODER, HEAD, SUGGESTION, listed
from backbones.sources.unsupported import unsupported
from backbones.weights.checkpoint import FORMAT, Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.read import interpret
from backbones.weights.reader import WeightFile, open_weight_file, take_weights
from backbones.weights.zoo import find_public
from backbones.weights.zoo_entry import PublicCheckpoint

SHOWN = 8  # tensors of an unknown file
UNTOLD = {
    "--init-heads": "--init-heads",
    "--init-image-size": "--init-image-size",
    "--init-mean": "--init-mean and --init-std",
}
TRAIN = "python tools/train_det.py RECIPE --data DIR --out RUN"
FROM_FILE = " --init-architecture file"
IN_RECIPES = {"vit_demo_patch8", "vit_base_patch16", "vit_large_patch16", "vit_huge_patch14", "vit_huge_patch16"}
ALIKE = "  # train_cls.py and train_seg.py alike"
TRAINING = ("optimizer", "optim", "epoch", "scaler", "iteration", "lr_scheduler", "message_hub", "param_schedulers")


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What a file looks like."""

    file: WeightFile
    md5: str
    declared: InitialWeights
    """What was said of it; its source is not looked at."""
    candidates: dict[str, Checkpoint]
    """By source, those whose names fit the whole file."""
    refusals: dict[str, str]
    """By source, why the file is not of it."""
    undeclared: dict[str, str]
    """By source, the flags of one that refuses the file only for what it does not tell, and takes it with these."""
    public: PublicCheckpoint | None

    @property
    def failure(self) -> str | None:
        """Why there is no candidate, in one line."""
        if self.candidates:
            return None
        if self.undeclared:
            flags = " or ".join(dict.fromkeys(self.undeclared.values()))
            return f"has the names of {', '.join(self.undeclared)}, and does not tell all; add {flags}."
        if family := unsupported(self.file.tensors):
            return family
        held = listed(f"{name} {tuple(tensor.shape)}" for name, tensor in self.file.tensors.items())
        return f"is of no family that is known here; it holds {held}."

    def lines(self) -> list[str]:
        """The whole of it for people."""
        file = self.file
        numbers = sum(tensor.numel() for tensor in file.tensors.values())
        kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in file.tensors.values()})
        lines = [
            f"{file.path}: {file.kind}, {file.path.stat().st_size:,} bytes",
            f"  sha256 {file.sha256}",
            f"  md5 {self.md5}",
            f"  {len(file.tensors)} tensors, {numbers:,} numbers ({', '.join(kinds)})"
            + (f", in the entry {file.entry!r}" if file.entry else ""),
        ]
        if file.others:
            lines.append(f"  beside them: {', '.join(file.others)}")
        if self.public:
            lines.append(f"  by its {'md5' if self.public.md5 else 'name'} it is the published {self.public.name}")
        if not self.candidates:
            return [*lines, *self._unknown()]
        names = list(self.candidates)
        first = self.candidates[names[0]]
        lines += [f"contents: {contents(first, file)}", f"architecture: {named(first.architecture)}"]
        lines += [f"  note: {note}" for note in first.notes]
        lines += [f"  {line}" for line in evidence(file.tensors)]
        if len(names) > 1:
            lines.append("its names fit these sources; declare the one that it was published by:")
            lines += [f"  {name}: {SOURCES[name].title}; {_facts(self.candidates[name])}" for name in names]
        else:
            lines.append(_facts(first))
        if self.undeclared:
            lines.append("its names fit these too, which need to know what it does not tell:")
            lines += [f"  {name}: {SOURCES[name].title}; add {flags}" for name, flags in self.undeclared.items()]
        if self.public and self.public.source in names:
            names = [self.public.source]
        declared = replace(self.declared, source=names[0] if len(names) == 1 else "SOURCE")
        flags = training_flags(self.candidates[name].architecture for name in names)
        return [*lines, "to use it:", *(f"  {line}" for line in commands(first, declared, flags))]

    def _unknown(self) -> list[str]:
        """What people can tell such a file by, and why no source takes it."""
        tensors = self.file.tensors
        shown = [f"  {name} {tuple(tensor.shape)}" for name, tensor in [*tensors.items()][:SHOWN]]
        more = [f"  and {len(tensors) - SHOWN} more"] if len(tensors) > SHOWN else []
        reasons: dict[str, list[str]] = {}
        for name, why in self.refusals.items():
            reasons.setdefault(why, []).append(name)
        shown += [*more, "why no source takes it:"]
        return ["it holds:", *shown, *(f"  {', '.join(names)}: {why}" for why, names in reasons.items())]


def inspect_file(declared: InitialWeights) -> Inspection:
    """Return what the file looks like, as every source; of `declared` the rest is used. Raises what reading raises."""
    path = declared.path
    opened = open_weight_file(path, trust_pickle=declared.trust_pickle)
    opened.check()
    candidates: dict[str, Checkpoint] = {}
    refusals: dict[str, str] = {}
    undeclared: dict[str, str] = {}
    taken: dict[tuple[str, ...], WeightFile] = {}
    for name, source in SOURCES.items():
        try:
            if source.entries not in taken:
                taken[source.entries] = take_weights(opened, entries=source.entries)
            candidates[name] = interpret(taken[source.entries], replace(declared, source=name))
        except ValueError as error:
            why = str(error).removeprefix(f"{path}: ").removeprefix(f"read as source {name!r} ({source.title}): ")
            refusals[name] = why.replace(f"; {SUGGESTION}", "")
            flags = " or ".join(text for flag, text in UNTOLD.items() if flag in why)
            readable = bool(flags) and source.entries in taken
            if readable and _can_be_declared(taken[source.entries], replace(declared, source=name)):
                undeclared[name] = flags
    # an entry that nobody takes may be unreadable where the one that somebody takes is not
    read = next((taken[SOURCES[name].entries] for name in candidates), None)
    every = tuple(dict.fromkeys(entry for source in SOURCES.values() for entry in source.entries))
    file = read or take_weights(opened, entries=every)
    if "own" in candidates:  # its header settles it
        candidates = {"own": candidates["own"]}
    if FORMAT not in file.metadata:
        del refusals["own"]  # a header that is not there says nothing
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as bytes_of:
        while chunk := bytes_of.read(1 << 20):
            md5.update(chunk)
    return Inspection(
        file=file,
        md5=md5.hexdigest(),
        declared=declared,
        candidates=candidates,
        refusals=refusals,
        undeclared=undeclared,
        public=find_public(path.name, md5.hexdigest()),
    )


def _can_be_declared(file: WeightFile, declared: InitialWeights) -> bool:
    """Whether the source takes the file with some heads, image size, mean and std, where none were declared."""
    if declared.mean is None and declared.std is None:
        channels = next((tensor.shape[1] for tensor in file.tensors.values() if tensor.ndim == 4), 3)
        declared = replace(declared, mean=(0.5,) * channels, std=(0.5,) * channels)
    heads = [declared.num_heads] if declared.num_heads is not None else [None, 1]
    sizes = [declared.image_size] if declared.image_size is not None else [None, *_sizes(file.tensors)]
    for num_heads in heads:
        for image_size in sizes:
            try:
                interpret(file, replace(declared, num_heads=num_heads, image_size=image_size))
            except ValueError:
                continue
            return True
    return False


def _sizes(tensors: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    """Return images of one row of patches that the tables of positions could be made for, by their rows."""
    patches = {t.shape[-1] for t in tensors.values() if t.ndim == 4}
    positions = {t.shape[1] for name, t in tensors.items() if t.ndim == 3 and re.search(r"pos\w*_embed\w*$", name)}
    distances = {t.shape[0] for name, t in tensors.items() if t.ndim == 2 and name.endswith("position_bias_table")}
    columns = {rows - prefix for rows in positions for prefix in (0, 1, 2)}
    columns |= {(rows - kept + 1) // 2 for rows in distances for kept in (0, CLASS_ROWS)}
    return [(patch, n * patch) for patch in sorted(patches) for n in sorted(columns) if n > 0 < patch]


def contents(checkpoint: Checkpoint, file: WeightFile) -> str:
    """Return what a file holds: encoder, decoder, head, a whole training state."""
    state = checkpoint.state
    parts = ["encoder"]
    if any(DECODER.fullmatch(name) for name in state):
        parts.append("MAE's decoder")
    if "head.weight" in state:
        parts.append(f"a head of {state['head.weight'].shape[0]} classes (fine-tuned, or trained from labels)")
    elif any(HEAD.fullmatch(name) for name in state):
        parts.append("the norm of a head (fine-tuned)")
    if any(name.lower().startswith(TRAINING) for name in file.others):
        parts.append("a training run's state")
    return ", ".join(parts)


def usual_name(architecture: ViTConfig) -> str | None:
    """Return the name of a ViT of these sizes in the family, None where there is none."""
    sizes = ("embed_dim", "depth", "num_heads", "patch_size", "mlp_width")
    equal = (n for n, c in FAMILY.items() if all(getattr(c, f) == getattr(architecture, f) for f in sizes))
    return next(equal, None)


def named(architecture: ViTConfig) -> str:
    """Return the name in the family, if any, and the numbers."""
    a, name = architecture, usual_name(architecture) or "of no usual size"
    extras = [
        f"{field} {value}"
        for field, value in (
            ("relative_position", a.relative_position if a.relative_position != "none" else None),
            ("window_size", a.window_size or None),
            ("qkv_bias", a.qkv_bias if a.qkv_bias != "fused" else None),
            ("rotary positions", a.rotary if a.rotary != "none" else None),
            ("layer scale", "yes" if a.layer_scale is not None else None),
            ("distilled", "yes" if a.distilled else None),
            ("registers", a.registers or None),
            ("norm before the blocks", "yes" if a.pre_norm else None),
            ("norms", a.norm if a.norm != "layer" else None),
            ("norm of the patches", "yes" if a.patch_norm else None),
            ("norm in attention", "yes" if a.attention_norm else None),
            ("norm in the MLP", "yes" if a.mlp_norm else None),
            ("biases", "none" if not a.bias else None),
            ("norm_eps", a.norm_eps if a.norm_eps != 1e-6 else None),
            ("activation", a.activation if a.activation != "gelu" else None),
            ("channels", a.in_chans if a.in_chans != 3 else None),
            ("position table", "none" if a.position == "none" else None),
            ("positions", "computed at every size" if a.position == "computed" else None),
        )
        if value is not None
    ]
    numbers = f"width {a.embed_dim}, depth {a.depth}, heads {a.num_heads}, patch {a.patch_size}"
    return f"{name} ({', '.join([numbers, f'{a.image_size[0]} x {a.image_size[1]} px', *extras])})"


def evidence(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return what the values tell that the names do not."""
    table = next((t for name, t in tensors.items() if name.endswith(("pos_embed", "position_embeddings"))), None)
    if table is None or table.ndim != 3:
        return []
    side = round((table.shape[1] - 1) ** 0.5)
    if side * side != table.shape[1] - 1 or table.shape[2] % 4:
        return []
    fixed = sincos_table(table.shape[2], (side, side), 1)
    swapped = torch.cat(fixed.chunk(2, dim=2)[::-1], dim=2)
    if torch.allclose(table.float(), fixed, atol=1e-4):  # published tables went through float32 angles
        return ["the position table is MAE's fixed sin-cos table"]
    if torch.allclose(table.float(), swapped, atol=1e-4):
        return ["the position table is MoCo v3's fixed sin-cos table"]
    return ["the position table was learned, or fine-tuned"]


def _facts(checkpoint: Checkpoint) -> str:
    mean, std = (
        ", ".join(f"{v:g}" for v in values) for values in (checkpoint.normalisation.mean, checkpoint.normalisation.std)
    )
    return f"{checkpoint.architecture.num_heads} heads, pixels of mean {mean} and std {std}"


def training_flags(architectures: Iterable[ViTConfig]) -> str:
    """Return the flags that a training tool needs for weights that may be of each of these architectures.

    No recipe has a ViT of another size, with a layer scale, or with BEiT's biases or tables: the file's own is built
    then. H/14 is brought to patches of 16, as in ViTDet; a recipe of H/14 itself
    (train_cls.py mae_huge) takes the same flag, which then changes nothing.
    """
    found = list(architectures)
    if any(
        a.layer_scale is not None or a.qkv_bias != "fused" or "table" in a.relative_position or a.unusual for a in found
    ):
        return FROM_FILE
    names = {usual_name(a) for a in found}
    if names == {"vit_huge_patch14"}:
        return " --init-resize-patch"
    return "" if names <= IN_RECIPES else FROM_FILE


def commands(checkpoint: Checkpoint, declared: InitialWeights, flags: str = "") -> list[str]:
    """Return the commands that train from a file and that convert it; `flags` are more flags of training."""
    file = shlex.quote(str(checkpoint.path))
    source = "" if declared.source == "own" else f" --init-source {declared.source}"
    heads = "" if declared.num_heads is None else f" --init-heads {declared.num_heads}"
    size = (
        "" if declared.image_size is None else f" --init-image-size {declared.image_size[0]} {declared.image_size[1]}"
    )
    trust = " --trust-pickle" if declared.trust_pickle else ""
    pixels = "".join(
        f" --init-{name} {' '.join(f'{value:g}' for value in values)}"
        for name, values in (("mean", declared.mean), ("std", declared.std))
        if values is not None
    )
    said = f"{source}{heads}{size}{pixels}{trust}"
    convert = f"python tools/convert_checkpoint.py convert {file}{said} --out backbone.safetensors"
    if checkpoint.architecture.in_chans != 3:  # data are read as RGB
        convert += " --in-chans 3 --inflate sum"
        return [f"{convert}  # or mean, repeat", f"{TRAIN} --init backbone.safetensors{flags}{ALIKE}"]
    load = f"{TRAIN} --init {file}{said}{flags}{ALIKE}"
    return [load] if declared.source == "own" else [load, convert]
