"""The one ViT (arXiv 2010.11929) that every task of the project uses, with the parameter names of MAE's code.

It encodes the visible tokens of a masked image (MAE, section 3), gives all tokens for classification, and gives
feature maps for dense tasks. Masking lives in the caller: nothing here masks a patch unless it is told which to keep.
Axis letters: B batch, C channels, H x W pixels, h x w patches, N = h * w, K kept patches, T tokens, D width, Q queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from backbones.attention import Attention, TableBias
from backbones.config import Grid, ViTConfig
from backbones.layers import Block, Mlp, PatchEmbed, carried_out, initialise, norm_of
from backbones.position import resize_position, sincos_table
from backbones.rotary import patch_angles, turn


@dataclass(frozen=True, kw_only=True)
class Queries:
    """Tokens of a task that join the ViT's for its last blocks, in front of all others and without a place (EoMT, arXiv
    2503.19108)."""

    query_QD: Tensor
    """The tokens."""
    blocks: int
    """How many blocks they go through."""
    mask: Callable[[int, Tensor, Grid], Tensor | None]
    """Called before each of these blocks, counted from 0, with all tokens, (B, Q + T, D), and the grid of the patches,
    which are the last of them; returns which token may look at which, (B, Q + T, Q + T), or None where all may."""


class ViT(nn.Module):
    """A plain ViT; `class_token` and `final_norm` say which of the optional parameters a task has a use for."""

    cls_token: Tensor | None
    dist_token: Tensor | None
    reg_token: Tensor | None
    pos_embed: Tensor | None

    def __init__(
        self,
        architecture: ViTConfig,
        *,
        class_token: bool = True,
        final_norm: bool = True,
        drop_path: float = 0.0,
        train_position: bool = True,
        activation_checkpointing: bool = False,
    ) -> None:
        """Build with random weights from the global generator.

        `drop_path` is the rate of the last block, rising linearly from 0 at the first. `train_position` False keeps
        the position table fixed, as in MAE's pre-training; fine-tuning trains it. `activation_checkpointing` keeps one
        tensor per block and computes the rest again in the backward pass. Raises ValueError for a class token with
        windows or decomposed positions, in which it has no place.
        """
        super().__init__()
        a = architecture
        if class_token and (a.window_size or a.relative_position == "decomposed"):
            what = "windows" if a.window_size else "decomposed relative positions"
            raise ValueError(f"a class token has no place in {what}; build the ViT with class_token=False.")
        self.architecture = a
        self.activation_checkpointing = activation_checkpointing
        self.num_prefix_positions = (1 + a.distilled) if class_token else 0
        """Rows of the position table before the patches: registers have none."""
        self.num_prefix_tokens = self.num_prefix_positions + a.registers
        self.patch_embed = PatchEmbed(
            patch_size=a.patch_size,
            in_chans=a.in_chans,
            embed_dim=a.embed_dim,
            bias=not a.pre_norm,
            norm=norm_of(a.norm, a.embed_dim, eps=a.norm_eps) if a.patch_norm else None,
        )
        self.norm_pre = norm_of(a.norm, a.embed_dim, eps=a.norm_eps) if a.pre_norm else None
        self.cls_token = nn.Parameter(torch.zeros(1, 1, a.embed_dim)) if class_token else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, a.embed_dim)) if class_token and a.distilled else None
        self.reg_token = nn.Parameter(torch.zeros(1, a.registers, a.embed_dim)) if a.registers else None
        self.pos_embed = (
            nn.Parameter(_first_table(a, self.num_prefix_positions), train_position)
            if a.position in ("sincos", "learned")
            else None
        )
        rates = [drop_path * i / max(1, a.depth - 1) for i in range(a.depth)]
        self.blocks = nn.ModuleList(_block(a, i, class_token=class_token, drop_path=rates[i]) for i in range(a.depth))
        self.rel_pos_bias = self.window_rel_pos_bias = None
        if a.relative_position == "shared_table":
            kinds = {a.windowed(block) for block in range(a.depth)}
            if False in kinds:
                self.rel_pos_bias = TableBias(a.relative_grid, num_heads=a.num_heads, class_token=class_token)
            if True in kinds:
                window = (a.window_size, a.window_size)
                self.window_rel_pos_bias = TableBias(window, num_heads=a.num_heads, class_token=False)
        self.norm = norm_of(a.norm, a.embed_dim, eps=a.norm_eps) if final_norm else nn.Identity()
        self.apply(initialise)
        for token in (self.cls_token, self.dist_token, self.reg_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)
        if a.position == "learned" and self.pos_embed is not None:
            nn.init.normal_(self.pos_embed, std=0.02)

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """Return every token, (B, num_prefix_tokens + N, D), after the final norm where there is one."""
        x_BND, grid = self._embed(image_BCHW)
        return self.norm(self._run(x_BND, grid, ())[0])

    def encode_visible(self, image_BCHW: Tensor, keep_BK: Tensor) -> Tensor:
        """Return the tokens of the kept patches only, (B, num_prefix_tokens + K, D), in the order of `keep_BK`.

        `keep_BK` holds patch numbers (row-major). The encoder never sees the other patches (MAE, section 3). Raises
        ValueError for windows and relative positions, which need the whole grid.
        """
        x_BND, grid = self._embed(image_BCHW)
        x_BKD = x_BND.gather(1, keep_BK[:, :, None].expand(-1, -1, x_BND.shape[2]))
        return self.norm(self._run(x_BKD, grid, (), keep_BK)[0])

    def encode_masked(self, image_BCHW: Tensor, mask_BN: Tensor, mask_token_11D: Tensor) -> Tensor:
        """Return every token, (B, num_prefix_tokens + N, D), after the final norm, the mask token in place of the
        masked patches.

        `mask_BN` is True where masked. The way of BEiT, and of MAE's table 1c; positions are added to the mask tokens
        too.
        """
        x_BND, grid = self._embed(image_BCHW, mask_BN, mask_token_11D)
        return self.norm(self._run(x_BND, grid, ())[0])

    def feature_maps(self, image_BCHW: Tensor, out_indices: Sequence[int]) -> list[Tensor]:
        """Return the patch tokens after each block of `out_indices` (0-based, ascending) as maps (B, D, h, w).

        No norm is applied: ViTDet's and mmsegmentation's dense models take the residual stream as it is.
        """
        depth = len(self.blocks)
        if (
            list(out_indices) != sorted(set(out_indices))
            or not out_indices
            or out_indices[0] < 0
            or out_indices[-1] >= depth
        ):
            raise ValueError(f"out_indices {list(out_indices)} must be ascending block numbers from 0 to {depth - 1}.")
        x_BND, (rows, columns) = self._embed(image_BCHW)
        _, found = self._run(x_BND, (rows, columns), out_indices)
        return [x_BTD[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, (rows, columns)) for x_BTD in found]

    def with_queries(self, image_BCHW: Tensor, queries: Queries) -> tuple[Tensor, Grid]:
        """Return the queries and every token of the ViT, (B, Q + num_prefix_tokens + N, D), before the final norm, and
        the grid of the patches.

        Raises ValueError where `check_queries` does.
        """
        check_queries(self.architecture, queries.blocks)
        x_BND, grid = self._embed(image_BCHW)
        return self._run(x_BND, grid, (), queries=queries)[0], grid

    def _embed(
        self, image_BCHW: Tensor, mask_BN: Tensor | None = None, mask_token_11D: Tensor | None = None
    ) -> tuple[Tensor, Grid]:
        """Return patch tokens with their positions added, (B, N, D), and the grid; masked ones are the mask token."""
        x_BhwD = self.patch_embed(image_BCHW)
        grid = (x_BhwD.shape[1], x_BhwD.shape[2])
        x_BND = x_BhwD.flatten(1, 2)
        if mask_BN is not None and mask_token_11D is not None:
            x_BND = torch.where(mask_BN[:, :, None], mask_token_11D.to(x_BND.dtype), x_BND)
        if self.architecture.position == "computed":
            return x_BND + sincos_table(x_BND.shape[2], grid, 0, like=x_BND), grid
        if self.pos_embed is None:
            return x_BND, grid
        table_1PD = resize_position(self.pos_embed, self.architecture.grid, grid, self.num_prefix_positions)
        return x_BND + table_1PD[:, self.num_prefix_positions :], grid

    def _with_prefix(self, x_BND: Tensor) -> Tensor:
        tokens = [token for token in (self.cls_token, self.dist_token) if token is not None]
        if self.pos_embed is not None and tokens:
            tokens = [torch.cat(tokens, dim=1) + self.pos_embed[:, : self.num_prefix_positions]]
        if self.reg_token is not None:
            tokens.append(self.reg_token)
        if not tokens:
            return x_BND
        first_1PD = torch.cat(tokens, dim=1)
        return torch.cat([first_1PD.to(x_BND.dtype).expand(x_BND.shape[0], -1, -1), x_BND], dim=1)

    def _run(
        self,
        x_BND: Tensor,
        grid: Grid,
        out_indices: Sequence[int],
        keep_BK: Tensor | None = None,
        queries: Queries | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return all tokens after the last block that is needed, and those after each of `out_indices`.

        `x_BND` are the patches of the grid, or those of `keep_BK` alone.
        """
        turn_2TF = self._turn(x_BND, grid, keep_BK)
        x_BTD = self._with_prefix(x_BND)
        whole = grid if keep_BK is None else None
        whole_HTT = self._shared(self.rel_pos_bias, whole)
        window = self.architecture.window_size
        within_HTT = self._shared(self.window_rel_pos_bias, (window, window))
        within_2TF = self._turn(x_BND, (window, window), None) if window else None
        if self.norm_pre is not None:
            x_BTD = self.norm_pre(x_BTD)
        found = []
        last = out_indices[-1] if out_indices else len(self.blocks) - 1
        mask_BTT = None
        for number, block in enumerate(self.blocks[: last + 1]):
            if queries is not None and (behind := number - (len(self.blocks) - queries.blocks)) >= 0:
                if behind == 0:
                    query_BQD = queries.query_QD.to(x_BTD.dtype).expand(x_BTD.shape[0], -1, -1)
                    x_BTD = torch.cat([query_BQD, x_BTD], dim=1)
                    turn_2TF = self._turn(x_BND, grid, None, in_front=query_BQD.shape[1])
                mask_BTT = queries.mask(behind, x_BTD, grid)
            windowed = self.architecture.windowed(number)
            shared_HTT, turning_2TF = (within_HTT, within_2TF) if windowed else (whole_HTT, turn_2TF)
            x_BTD = carried_out(
                block, x_BTD, whole, shared_HTT, turning_2TF, mask_BTT, saving=self.activation_checkpointing
            )
            if number in out_indices:
                found.append(x_BTD)
        return x_BTD, found

    def _turn(self, x_BND: Tensor, grid: Grid, keep_BK: Tensor | None, *, in_front: int = 0) -> Tensor | None:
        """Return by how much the tokens are turned, (2, T, F) or, of kept patches, (2, B, T, F).

        `in_front` more tokens come first.
        """
        if self.architecture.rotary == "none":
            return None
        angles_NF = patch_angles(self.architecture, grid, like=x_BND)
        return turn(angles_NF if keep_BK is None else angles_NF[keep_BK], in_front + self.num_prefix_tokens)

    @staticmethod
    def _shared(table: TableBias | None, grid: Grid | None) -> Tensor | None:
        if table is None:
            return None
        if grid is None:
            raise ValueError("relative positions need every patch of a grid; a masked image has none.")
        return table(grid)


def check_queries(architecture: ViTConfig, blocks: int) -> None:
    """Raise ValueError for a ViT in whose windows or decomposed relative positions a token without a place has none,
    and for a number of last blocks that it does not have."""
    if architecture.window_size or architecture.relative_position == "decomposed":
        what = "windows" if architecture.window_size else "decomposed relative positions"
        raise ValueError(f"queries have no place in {what}; take a ViT without them, or a head without queries.")
    if not 0 < blocks <= architecture.depth:
        raise ValueError(
            f"queries go through the last {blocks} blocks, of {architecture.depth}: name 1 or more of them."
        )


def _first_table(a: ViTConfig, num_prefix_positions: int) -> Tensor:
    if a.position == "sincos":
        return sincos_table(a.embed_dim, a.grid, num_prefix_positions)
    return torch.empty(1, num_prefix_positions + a.grid[0] * a.grid[1], a.embed_dim)


def _block(a: ViTConfig, number: int, *, class_token: bool, drop_path: float) -> Block:
    windowed = a.windowed(number)
    attention = Attention(
        a.embed_dim,
        num_heads=a.num_heads,
        qkv_bias=a.qkv_bias,
        bias=a.bias,
        neighbours=a.rotary == "stretched",
        relative="none" if a.relative_position == "shared_table" else a.relative_position,
        made_for=(a.window_size, a.window_size) if windowed else a.relative_grid,
        class_token=class_token,
        norm=norm_of(a.norm, a.embed_dim, eps=a.norm_eps) if a.attention_norm else None,
    )
    mlp = Mlp(
        a.embed_dim,
        hidden_dim=a.mlp_width,
        activation=a.activation,
        bias=a.bias,
        norm=norm_of(a.norm, a.mlp_width, eps=a.norm_eps) if a.mlp_norm else None,
    )
    return Block(
        attention,
        mlp,
        drop_path=drop_path,
        layer_scale=a.layer_scale,
        window_size=a.window_size if windowed else 0,
        norm=a.norm,
        norm_eps=a.norm_eps,
    )
