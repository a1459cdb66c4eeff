"""The weights that a run starts from, from the user's declaration to a ViT that holds them."""

from dataclasses import replace
from typing import Any, Protocol, TypeVar

from backbones.config import ViTConfig, blocks_at_depth
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.loader import RANDOM, Fit, LoadReport, adapted, load_checkpoint, tokenless
from backbones.weights.normalisation import IMAGENET, Normalisation
from backbones.weights.read import read_checkpoint


class HasBackbone(Protocol):
    """The configuration of a task: a frozen dataclass with the architecture of its ViT."""

    @property
    def backbone(self) -> ViTConfig:
        """The ViT."""


C = TypeVar("C", bound=HasBackbone)


def with_architecture(config: C, init: InitialWeights | None) -> C:
    """Return the configuration with the file's ViT in place of the recipe's where that was declared.

    Where weights have no class token and the task reads none (mean pooling, maps), the ViT is built without. The image
    size stays the recipe's, and so do windows and relative positions where the file has none (the blocks that attend
    over the whole image at the same shares of the depth), and the patch size where the patch projection is to be
    resampled; tokens and final norm are the task's. RGB weights take the recipe's channels. Raises ValueError for
    weights of another number of channels otherwise, and what reading raises.
    """
    has_choice = getattr(config, "class_token", False) and not getattr(config, "reads_class_token", False)
    if init is None or (init.architecture == "recipe" and not has_choice):
        return config
    checkpoint = read_checkpoint(init)
    if has_choice and "cls_token" not in checkpoint.state and not config.backbone.distilled:
        config = replace(config, class_token=False)  # type: ignore[type-var]
    if init.architecture == "recipe":
        return config
    recipe, found = config.backbone, checkpoint.architecture
    if found.in_chans != recipe.in_chans and adapted(found.in_chans, recipe.in_chans) is None:
        raise ValueError(
            f"{init.path}: weights for images of {found.in_chans} channels, and the data are read with "
            f"{recipe.in_chans}; `tools/convert_checkpoint.py convert FILE --in-chans {recipe.in_chans} --inflate sum` "
            f"(or mean, repeat) carries them over; --in-chans {found.in_chans} reads images of so many channels."
        )
    # what the weights do not fix stays the recipe's
    changes: dict[str, Any] = {"image_size": recipe.image_size, "distilled": False, "relative_size": None}
    changes["in_chans"] = recipe.in_chans
    if found.relative_position == "none":
        changes |= {"relative_position": recipe.relative_position, "relative_size": recipe.relative_size}
    if init.resize_patch:  # to the recipe's patches
        changes["patch_size"] = recipe.patch_size
    if tokenless(recipe):  # ViTDet: no token has a place before the patches
        changes["registers"] = 0
    if not found.window_size:
        blocks = blocks_at_depth(recipe.global_blocks, recipe.depth, found.depth)
        whole = tuple(dict.fromkeys(max(0, block) for block in blocks))  # of fewer blocks, two may be one
        changes |= {"window_size": recipe.window_size, "global_blocks": whole}
    try:
        return replace(config, backbone=replace(found, **changes))  # type: ignore[type-var]
    except ValueError as error:
        raise ValueError(
            f"{init.path}: its architecture does not go with the recipe's: {error}{_other_size(recipe, found)}"
            f"{_without_tables(recipe, found)}"
        ) from error


def _without_tables(recipe: ViTConfig, found: ViTConfig) -> str:
    """Return the flag that makes registers fit, nothing where they do."""
    if not found.registers or tokenless(recipe) or recipe.relative_position == "none":
        return ""
    return " Give --relative-position none, to train without the recipe's relative positions."


def _other_size(recipe: ViTConfig, found: ViTConfig) -> str:
    """Return the flags that make patches of another size fit, nothing where they do."""
    patch = found.patch_size
    if not any(side % patch for side in recipe.image_size):
        return ""
    sides = " ".join(str(max(1, round(side / patch)) * patch) for side in recipe.image_size)
    return (
        f" Give --init-resize-patch, which resamples the patches of the weights to the recipe's {recipe.patch_size} "
        f"pixels, or (but in detection) `--patch-size {patch} --image-size {sides}`."
    )


def vit_in(checkpoint: Checkpoint) -> tuple[ViT, LoadReport]:
    """Return the ViT that a checkpoint holds, with the class token and the final norm that it has, and the report.

    Raises what loading raises.
    """
    vit = ViT(
        checkpoint.architecture,
        class_token="cls_token" in checkpoint.state,
        final_norm="norm.weight" in checkpoint.state,
    )
    return vit, load_checkpoint(vit, checkpoint)


def read_initial(init: InitialWeights | None) -> Checkpoint | None:
    """Return the declared weights, None for random ones and where a checkpoint of the run takes their place.

    Raises what reading raises.
    """
    return None if init is None or init.normalisation is not None else read_checkpoint(init)


def normalisation_of(init: InitialWeights | None, checkpoint: Checkpoint | None) -> Normalisation:
    """Return what the weights normalise pixels with, ImageNet's mean and std for random ones.

    `checkpoint` is what `read_initial` gave.
    """
    if init is not None and init.normalisation is not None:
        return Normalisation(**init.normalisation)
    return IMAGENET if checkpoint is None else checkpoint.normalisation


def start_from(
    vit: ViT, init: InitialWeights | None, checkpoint: Checkpoint | None = None
) -> tuple[LoadReport, Normalisation]:
    """Put the declared weights into `vit`, or leave its random ones, and return the report and the normalisation.

    `checkpoint` is what `read_initial` gave, where a task needs something of it earlier: a file is read once. A
    declaration with a normalisation has the weights' place taken by a checkpoint: nothing is read. RGB weights are
    carried to a ViT of other channels (`adapted`), which the report says; their normalisation stays that of RGB. Raises
    what reading and loading raise.
    """
    if init is None:
        return RANDOM, IMAGENET
    if init.normalisation is not None:
        return LoadReport(path=None, source=init.source), normalisation_of(init, None)
    checkpoint = checkpoint or read_checkpoint(init)
    old, new = checkpoint.architecture.in_chans, vit.architecture.in_chans
    rule = adapted(old, new)
    report = load_checkpoint(vit, checkpoint, Fit(resize_patch=init.resize_patch, inflate=rule))
    if rule is not None:
        how = "their sum" if rule == "sum" else f"the {old} in turn, times {old} / {new}"
        said = f"patch projection: the kernels of {new} channel(s) are {how}, as timm's adapt_input_conv has it"
        report = replace(report, notes=(*report.notes, said))
    return report, checkpoint.normalisation
