"""A Checkpoint put into a ViT strictly: every tensor is loaded, resized, dropped by a stated rule, or an error."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from backbones.config import Grid, ViTConfig
from backbones.position import resize_patches, resize_position
from backbones.relative_position import CLASS_ROWS, resize_table, resize_vectors
from backbones.sources.source import DECODER, HEAD, differences, listed
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import Inflation

RGB = 3  # channels
SHARED = "rel_pos_bias.relative_position_bias_table"


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How weights may be changed to fit a ViT of another shape; nothing of it is done unless it is asked for."""

    resize_patch: bool = False
    """Resample the patch projection to another patch size (bicubic), as ViTDet does for H/14."""
    inflate: Inflation | None = None
    """Carry the patch projection to another number of channels: `sum` shares the sum of the old kernels among the new
    channels, so a greyscale image copied to all gives what it gave; `mean` gives each the mean; `repeat` cycles through
    the old ones, scaled by old / new (timm's rule)."""


@dataclass(frozen=True, eq=False)
class LoadReport:
    """What became of every tensor of a checkpoint."""

    path: str | None
    """None where the ViT keeps its random weights."""
    source: str
    digest: Callable[[], str] | None = None
    loaded: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()
    """`name: from -> to, method`"""
    dropped: tuple[str, ...] = ()
    """`name: rule`"""
    new: tuple[str, ...] = ()
    """`name: value` of parameters that the file has not and that start without an effect."""
    notes: tuple[str, ...] = ()
    """What was concluded and not read from the file."""

    @property
    def sha256(self) -> str | None:
        """Of the file."""
        return self.digest() if self.digest else None

    def lines(self) -> list[str]:
        """A few lines for people; what shares a rule, or differs in the block's number alone, shares one."""
        if self.path is None:
            return []
        digest = (self.sha256 or "")[:12]
        head = f"{Path(self.path).name} ({self.source}, sha256 {digest}): {len(self.loaded)} tensors loaded"
        shorten = {"dropped": by_rule}
        parts = ((what, shorten.get(what, _by_block)(items)) for what, items in self._parts())
        return [head, *(f"  {what} {line}" for what, lines in parts for line in lines)]

    def all_lines(self) -> list[str]:
        """One line for every tensor."""
        return [
            *(f"loaded {name}" for name in self.loaded),
            *(f"{what} {item}" for what, items in self._parts() for item in items),
        ]

    def _parts(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return ("resized", self.resized), ("dropped", self.dropped), ("new", self.new), ("note", self.notes)


RANDOM = LoadReport(path=None, source="random")


def load_checkpoint(vit: ViT, checkpoint: Checkpoint, fit: Fit | None = None) -> LoadReport:
    """Put the weights into `vit` and return what became of every tensor.

    Position tables are resized to the ViT's grid; a decoder, a head, and the final norm and class token that the ViT
    has no use for are dropped; zero relative positions and a layer scale of 1 may be new. Raises ValueError where the
    architecture differs or a name is missing on either side.
    """
    fit = fit or Fit()
    _check_architecture(checkpoint, vit.architecture, fit)
    work = _Fitting(checkpoint, vit)
    wanted = vit.state_dict()
    for name, tensor in checkpoint.state.items():
        try:
            work.take(name, tensor, wanted, fit)
        except ValueError as error:
            raise ValueError(f"{checkpoint.path}: {name}: {error}") from error
    work.join_bias(wanted)
    work.start_new(wanted)
    state = work.state
    missing, unexpected, shapes = differences(state, wanted)
    if missing or unexpected or shapes:
        raise ValueError(
            f"{checkpoint.path}: the weights do not fit the backbone. Missing {len(missing)} ({listed(missing)}); "
            f"unexpected {len(unexpected)} ({listed(unexpected)}); other shape {len(shapes)} ({listed(shapes)})."
            f"{_hint(missing, unexpected, checkpoint)}"
        )
    checkpoint.check()
    vit.load_state_dict(state)
    new = {item.partition(":")[0] for item in work.new}
    return LoadReport(
        path=str(checkpoint.path),
        source=checkpoint.source,
        digest=checkpoint.digest,
        loaded=tuple(sorted(state.keys() - new)),
        resized=tuple(work.resized),
        dropped=(*work.dropped, *checkpoint.dropped),
        new=tuple(work.new),
        notes=checkpoint.notes,
    )


@dataclass
class _Fitting:
    """The state that a ViT will get, as it comes together."""

    checkpoint: Checkpoint
    vit: ViT
    state: dict[str, Tensor] = field(default_factory=dict)
    resized: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def take(self, name: str, tensor: Tensor, wanted: dict[str, Tensor], fit: Fit) -> None:
        """Give one tensor of the checkpoint its place."""
        last = name.rsplit(".", 1)[-1]
        if rule := _no_place(name, wanted):
            self.dropped.append(f"{name}: {rule}")
        elif name == "pos_embed":
            self._position(_wide(tensor))
        elif name == "patch_embed.proj.weight":
            self.state[name] = self._patches(_wide(tensor), wanted[name], fit)
        elif last in ("rel_pos_h", "rel_pos_w") and name in wanted:
            self.state[name] = resize_vectors(_wide(tensor), wanted[name].shape[0])
            if tensor.shape != wanted[name].shape:
                self.resized.append(f"{name}: {tensor.shape[0]} -> {wanted[name].shape[0]} distances, linear")
        elif last == "relative_position_bias_table":
            self._table(name, _wide(tensor), wanted)
        else:
            self.state[name] = tensor

    def join_bias(self, wanted: dict[str, Tensor]) -> None:
        """Make BEiT's two bias vectors one, zeros between them, where the ViT has one bias for all three."""
        for name in [name for name in self.state if name.endswith("attn.q_bias") and name not in wanted]:
            block = name.removesuffix("q_bias")
            if f"{block}qkv.bias" in wanted and f"{block}v_bias" in self.state:
                q, v = self.state.pop(name), self.state.pop(f"{block}v_bias")
                self.state[f"{block}qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
                self.resized.append(f"{block}qkv.bias: joined from q_bias and v_bias, zeros for the keys")

    def start_new(self, wanted: dict[str, Tensor]) -> None:
        """Let parameters start that change nothing at first: zero relative positions, a layer scale of 1."""
        scale = self.vit.architecture.layer_scale
        for name in wanted.keys() - self.state.keys():
            last = name.rsplit(".", 1)[-1]
            relative = last in ("rel_pos_h", "rel_pos_w", "relative_position_bias_table")
            if relative or (last in ("gamma_1", "gamma_2") and scale == 1.0):
                self.state[name] = torch.zeros_like(wanted[name]) if relative else torch.ones_like(wanted[name])
                self.new.append(f"{name}: {0 if relative else 1}")

    def _position(self, table: Tensor) -> None:
        checkpoint, vit = self.checkpoint, self.vit
        if vit.pos_embed is None:
            self.state["pos_embed"] = table  # refused as unexpected
            return
        old, new = checkpoint.architecture.grid, vit.architecture.grid
        if vit.num_prefix_positions > checkpoint.num_prefix_positions:
            token = "distillation" if checkpoint.num_prefix_positions else "class"
            way_out = "; a head on the mean of the patches needs none (--pooling mean)" if token == "class" else ""
            raise ValueError(f"the file has no {token} token, which this task's ViT needs{way_out}.")
        if vit.num_prefix_positions < checkpoint.num_prefix_positions:
            table = (
                table[:, checkpoint.num_prefix_positions :]
                if not vit.num_prefix_positions
                else _without_distillation(table)
            )
            self.dropped += [
                f"pos_embed row {row}: the task's ViT has no such token"
                for row in range(vit.num_prefix_positions, checkpoint.num_prefix_positions)
            ]
        if old != new:
            self.resized.append(f"pos_embed: {old[0]}x{old[1]} -> {new[0]}x{new[1]} patches, bicubic")
        self.state["pos_embed"] = resize_position(table, old, new, vit.num_prefix_positions)

    def _patches(self, kernel: Tensor, wanted: Tensor, fit: Fit) -> Tensor:
        name, (size, channels) = "patch_embed.proj.weight", (wanted.shape[-1], wanted.shape[1])
        if kernel.shape[-1] != size and fit.resize_patch:
            self.resized.append(f"{name}: {kernel.shape[-1]} -> {size} pixels, bicubic")
            kernel = resize_patches(kernel, size)
        if kernel.shape[1] != channels and fit.inflate:
            self.resized.append(f"{name}: {kernel.shape[1]} -> {channels} channels, {fit.inflate}")
            kernel = inflate(kernel, channels, fit.inflate)
        return kernel

    def _table(self, name: str, table: Tensor, wanted: dict[str, Tensor]) -> None:
        """Resize BEiT's table, and hand one that blocks share to each where the ViT has one per block."""
        if name != SHARED or SHARED in wanted:
            if name in wanted:
                self.state[name] = self._resized_table(name, table, name)
            else:
                self.state[name] = table  # refused as unexpected
            return
        targets = [target for target in wanted if target.endswith("attn.relative_position_bias_table")]
        if not targets:
            self.state[name] = table
            return
        for target in targets:
            self.state[target] = self._resized_table(name, table, target)
        self.resized.append(f"{name}: copied to {len(targets)} blocks")

    def _resized_table(self, name: str, table: Tensor, target: str) -> Tensor:
        old, had = self._table_grid(self.checkpoint.architecture, name), bool(self.checkpoint.num_prefix_positions)
        new, has = self._table_grid(self.vit.architecture, target), bool(self.vit.num_prefix_positions)
        if had and not has:
            table = table[:-CLASS_ROWS]
            self.dropped.append(f"{target} rows {table.shape[0]} on: the task's ViT has no class token")
            had = False
        elif has and not had:
            raise ValueError("the table has no rows for a class token, which this task's ViT has.")
        if old != new:
            self.resized.append(
                f"{target}: {old[0]}x{old[1]} -> {new[0]}x{new[1]} patches, spline in geometric progression"
            )
        return resize_table(table, old, new, class_token=had)

    @staticmethod
    def _table_grid(architecture: ViTConfig, name: str) -> Grid:
        """Return the grid that a table is made for: that of the window where its block has windows."""
        windowed = name.startswith("window_") or (
            name.startswith("blocks.") and architecture.windowed(int(name.split(".")[1]))
        )
        return (architecture.window_size, architecture.window_size) if windowed else architecture.relative_grid


def inflate(kernel_DChw: Tensor, channels: int, rule: Inflation) -> Tensor:
    """Return the patch projection for `channels` channels, (D, channels, h, w), in the way that `Fit` states."""
    old = kernel_DChw.shape[1]
    if rule == "repeat":
        return kernel_DChw[:, [channel % old for channel in range(channels)]] * (old / channels)
    total = kernel_DChw.sum(dim=1, keepdim=True) / (channels if rule == "sum" else old)
    return total.expand(-1, channels, -1, -1).clone()


def adapted(found: int, wanted: int) -> Inflation | None:
    """Return the rule by which RGB weights take images of another number of channels, None where none is needed or is
    known.

    timm's adapt_input_conv (timm/models/_manipulate.py): the sum for one channel, else the kernels in turn, times 3 /
    channels, so that a patch of equal channels gives what it gave wherever the channels are a multiple of three.
    """
    if found != RGB or wanted == RGB:
        return None
    return "sum" if wanted == 1 else "repeat"


def _no_place(name: str, wanted: dict[str, Tensor]) -> str | None:
    """Return the rule by which a tensor is dropped, None where it has a place."""
    if name in wanted:
        return None
    if DECODER.fullmatch(name):
        return "MAE's decoder"
    if HEAD.fullmatch(name):
        return "a head, of another task"
    if name in ("cls_token", "dist_token", "reg_token") or name.startswith("norm."):
        return "the task's ViT has none"
    return None


def tokenless(architecture: ViTConfig) -> bool:
    """Return whether no token has a place before the patches, as in ViTDet; those of a file are then dropped."""
    return architecture.window_size > 0 or architecture.relative_position == "decomposed"


def _wide(tensor: Tensor) -> Tensor:
    """Return it at least in float32, so that what is resampled is not rounded to half precision again."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _without_distillation(table_1PD: Tensor) -> Tensor:
    return torch.cat([table_1PD[:, :1], table_1PD[:, 2:]], dim=1)


def _check_architecture(checkpoint: Checkpoint, wanted: ViTConfig, fit: Fit) -> None:
    """Raise ValueError that names every field in which the two differ and that no rule can bridge."""
    found = checkpoint.architecture
    names = ["embed_dim", "depth", "num_heads", "activation", "pre_norm", "norm_eps"]
    names += ["norm", "bias", "patch_norm", "attention_norm", "mlp_norm", "rotary", "rotary_base", "rotary_grid"]
    names += ["rotary_offset", "rotary_first"]
    hints = []
    if not tokenless(wanted):
        names.append("registers")
    if not fit.resize_patch:
        names.append("patch_size")
        if found.patch_size != wanted.patch_size:
            hints.append("--init-resize-patch resamples the patch projection, as ViTDet does for H/14")
    if fit.inflate is None:
        names.append("in_chans")
        if found.in_chans != wanted.in_chans:
            hints.append(
                f"`tools/convert_checkpoint.py convert FILE --in-chans {wanted.in_chans} --inflate sum` (or "
                f"mean, repeat) carries the patch projection over, or --in-chans {found.in_chans} reads such images"
            )
    differ = [
        f"{n} {getattr(found, n)} (recipe: {getattr(wanted, n)})"
        for n in names
        if getattr(found, n) != getattr(wanted, n)
    ]
    if (found.position == "computed") != (wanted.position == "computed"):
        differ.append(f"position {found.position} (recipe: {wanted.position})")
    # a ratio read from widths is 512 / 192 where a recipe may say 2.667
    if found.mlp_width != round(found.embed_dim * wanted.mlp_ratio):
        differ.append(f"mlp_ratio {found.mlp_ratio} (recipe: {wanted.mlp_ratio})")
    if found.num_heads != wanted.num_heads and any("num_heads" in note for note in checkpoint.notes):
        hints.append(f"num_heads {found.num_heads} was concluded from the width; --init-heads declares another")
    if differ:
        hint = "".join(f"; {text}" for text in hints)
        raise ValueError(
            f"{checkpoint.path}: a checkpoint of another architecture: {', '.join(differ)}. "
            f"Take the recipe of that architecture, --init-architecture file, or another checkpoint{hint}."
        )


def _hint(missing: set[str], unexpected: set[str], checkpoint: Checkpoint) -> str:
    """Return what the usual causes are and how to mend them."""
    hints = []
    if any(name.startswith("norm.") for name in missing) and "fc_norm.weight" in checkpoint.state:
        hints.append("the file is of a fine-tuned model, which has fc_norm in place of the final norm")
    elif any(name.startswith("norm.") for name in missing):
        hints.append(
            "the file has no final norm, as fine-tuning leaves a ViT; a frozen ViT is read with it: take weights as "
            "pre-training leaves them"
        )
    if any("gamma_" in name for name in unexpected):
        hints.append("the backbone needs layer_scale: --init-architecture file")
    if any("rel_pos" in name or "relative_position" in name for name in unexpected):
        hints.append("the backbone needs the relative_position of the file: --init-architecture file")
    if any("q_bias" in name for name in missing):
        hints.append("the backbone has qkv_bias 'qv'; the file has one bias for all three")
    if "pos_embed" in unexpected:
        hints.append("the backbone has position 'none'; the file has a position table")
    if "pos_embed" in missing:
        hints.append("the file has no position table; the backbone needs position 'none'")
    return "".join(f" Hint: {hint}." for hint in hints)


def by_rule(items: Iterable[str]) -> list[str]:
    """Return `name: rule` items with those of one rule made one line."""
    grouped: dict[str, list[str]] = {}
    for item in items:
        name, _, rule = item.partition(": ")
        grouped.setdefault(rule, []).append(name)
    return [
        f"{names[0]}: {rule}" if len(names) == 1 else f"{len(names)} tensors: {rule} ({listed(names, most=3)})"
        for rule, names in grouped.items()
    ]


def _by_block(items: tuple[str, ...]) -> list[str]:
    """Return the items with those that differ in the number of the block alone made one."""
    grouped: dict[str, int] = {}
    for item in items:
        name, colon, rest = item.partition(":")
        line = re.sub(r"blocks\.\d+\.", "blocks.*.", name) + colon + rest
        grouped[line] = grouped.get(line, 0) + 1
    return [line if count == 1 else f"{line} ({count} tensors)" for line, count in grouped.items()]
