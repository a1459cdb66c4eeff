"""Options of masks from examples."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from backbones.config import ViTConfig
from engine.channels import refuse_channels
from engine.config import BASIC, FILE, Device, check_device
from segmentation.probe.config import LEADING_NEIGHBOURS

Method = Literal["retrieval", "inpainting"]
Prompt = Literal["mask", "box"]
FeatureKind = Literal["raw", "standardised"]
KINDS: tuple[FeatureKind, ...] = ("raw", "standardised")


@dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
    """What is shown as an example, and what is asked for."""

    backbone: ViTConfig
    """Architecture; its image_size is what images, or canvases, are resized to (not cropped)."""
    prompt: Annotated[Prompt, BASIC] = "mask"
    """What an example shows, and what a query is scored against: the mask of its object, or its box, filled."""
    queries_per_class: Annotated[int, BASIC] = 50
    """Most queries, or canvases, of each class, evenly spaced among all, the same for every seed."""
    least_area: Annotated[float, BASIC] = 0.05
    """Least share of its image that an object takes, of examples and queries."""
    most_area: Annotated[float, BASIC] = 0.5
    """Most of it; half is that of Bar et al."""
    train_split: Annotated[str, BASIC] = "train2017"
    """Folder of the images that examples are drawn from, and name of their annotations."""
    val_split: Annotated[str, BASIC] = "val2017"
    """Folder of the images that are asked about, and name of their annotations."""
    train_json: Annotated[str | None, BASIC, FILE] = None
    """Annotations of the former; None is annotations/instances_<train_split>.json in the data folder."""
    val_json: Annotated[str | None, BASIC, FILE] = None
    """Annotations of the latter; None is annotations/instances_<val_split>.json in the data folder."""
    seed: Annotated[int, BASIC] = 0
    """Seed of the examples and of random weights."""

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no examples and no queries."""
        refuse_channels(self.backbone.in_chans, "masks by example")
        if self.queries_per_class < 1:
            raise ValueError(f"queries_per_class is {self.queries_per_class}; give 1 or more.")
        if not 0 < self.least_area <= self.most_area <= 1:
            raise ValueError(
                f"least_area {self.least_area:g} and most_area {self.most_area:g} are shares of an image: above 0, at "
                "most 1, in ascending order (0.05 and 0.5 are usual)."
            )


@dataclass(frozen=True, kw_only=True)
class InContextConfig(EpisodeConfig):
    """And how the answer is made."""

    method: Annotated[Method, BASIC] = "retrieval"
    """`retrieval`: each patch takes its foreground share from the nearest patches of the examples. `inpainting`: an
    MAE paints the fourth cell of a canvas of example, mask and query; its weights need a decoder of plain pixels."""
    shots: Annotated[int, BASIC] = 1
    """Examples of each query, of its class, drawn by the seed; all where there are fewer."""
    features: Annotated[FeatureKind, BASIC] = "standardised"
    """What the leading metric of retrieval reads: features as they are, or of zero mean and unit variance over the
    patches of all example images of a class. Both are reported."""
    last_blocks: int = 1
    """Blocks, counted from the end, whose patch tokens make the features, side by side."""
    temperature: float = 0.02
    """A neighbour of cosine similarity s weighs exp(s / temperature)."""
    decoder_heads: int = 16
    """Inpainting: attention heads of the decoder of a weights file; a run knows them."""
    target: Literal["pixels", "normalised"] | None = None
    """Inpainting: what the decoder of a weights file predicts; a run knows it."""
    threshold: Annotated[float, BASIC] = 0.5
    """Share of foreground above which a pixel is the object; half is the nearer of two colours, too. A lower one finds
    more where answers are empty."""
    batch_size: int = 32
    """Images, or canvases, per forward pass."""
    device: Device = "auto"

    @property
    def leading(self) -> str:
        """The outcome that the metrics are of."""
        return f"{self.features}_k{LEADING_NEIGHBOURS}" if self.method == "retrieval" else "inpainting"

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that make no answer."""
        super().__post_init__()
        for name in ("shots", "batch_size", "decoder_heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; give 1 or more.")
        if not 1 <= self.last_blocks <= self.backbone.depth:
            raise ValueError(f"last_blocks is {self.last_blocks}; it is 1 to {self.backbone.depth}, the ViT's blocks.")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold:g}; it is a share, 0 to less than 1 (0.5 is usual).")
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature:g}; give a number above 0 (0.02 is usual).")
        check_device(self.device)
        self._refuse_what_has_no_effect()

    def _refuse_what_has_no_effect(self) -> None:
        """Raise ValueError, since an arm of a study would be a copy of another."""
        usual = {item.name: item.default for item in fields(self)}
        of = {"retrieval": ("features", "last_blocks", "temperature"), "inpainting": ("decoder_heads", "target")}
        for method, names in of.items():
            for name in names:
                if method != self.method and getattr(self, name) != usual[name]:
                    raise ValueError(f"{name} {getattr(self, name)} has no effect with method {self.method}.")
