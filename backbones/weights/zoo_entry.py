"""One entry of the catalogue of public ViT checkpoints."""

from dataclasses import dataclass
from typing import Literal

from backbones.config import FAMILY
from backbones.weights.declaration import FAMILIES

Contents = Literal["encoder", "encoder and decoder", "fine-tuned", "training checkpoint"]
Labels = Literal["none", "classes", "texts", "texts and classes", "boxes"]
Channels = tuple[float, float, float]

IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI_CLIP: tuple[Channels, Channels] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
SATELLITE: tuple[Channels, Channels] = ((0.43, 0.411, 0.296), (0.213, 0.156, 0.143))
"""Of DINOv3's SAT-493M (timm's entries of `vit_*_dinov3*.sat493m`)."""
HALF: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
HUB = "https://huggingface.co"


@dataclass(frozen=True, kw_only=True)
class PublishedNumber:
    """A number that was published for a file, or for what was fine-tuned from it."""

    what: str
    """The data set, the metric and how it was measured."""
    value: float
    """Percent."""
    source: str
    """Paper and table, or the repository's page."""


@dataclass(frozen=True, kw_only=True)
class PublicCheckpoint:
    """One published weight file."""

    name: str
    """The file's name; of a model on the Hugging Face hub, whose files are all named alike, `owner/model`."""
    source: str
    """The family, as `--init-source` takes it."""
    architecture: str
    """A name in `backbones.config.FAMILY`; layer scale, biases and registers are the file's."""
    folder: str
    """The address that `name` is at."""
    contents: Contents
    """`fine-tuned` has a classifier or detector on top (supervised weights too); a `training checkpoint` has momentum
    copies, projections or an optimiser beside the encoder."""
    data: str
    """What the weights were trained on, in order."""
    labels: Labels
    """What a person gave with the images: nothing, classes, texts (of the web's pages too) or boxes and masks; in any
    stage."""
    licence: str | None
    normalised_target: Literal["yes", "no", "not applicable"] | None = "not applicable"
    """Whether pre-training reconstructed pixels normalised by patch (MAE, section 4); it does not apply elsewhere."""
    epochs: int | None = None
    """Of pre-training, or of training where the weights are supervised; fine-tuning is not counted."""
    image_size: int
    """Side in pixels of the square image that its position table is made for."""
    paper: str
    """The paper that describes how it was trained, by its number on arXiv."""
    teacher: str | None = None
    """Another network that took part in training, with what that one was trained on."""
    published: tuple[PublishedNumber, ...] = ()
    """Numbers that its publisher, or a paper that used the file, states."""
    md5: str | None = None
    """The first digits of the file's MD5, as published."""
    mean: Channels = IMAGENET[0]
    std: Channels = IMAGENET[1]
    file: str | None = None
    """The file that a model of the hub keeps its weights in."""

    def __post_init__(self) -> None:
        """Raise ValueError for a family or an architecture that is not known here, or no address."""
        faults = []
        if self.source not in FAMILIES:
            faults.append(f"source {self.source!r} is none of {', '.join(FAMILIES)}")
        if self.architecture not in FAMILY:
            faults.append(f"architecture {self.architecture!r} is none of {', '.join(FAMILY)}")
        elif self.image_size < 1 or self.image_size % FAMILY[self.architecture].patch_size:
            faults.append(f"image_size {self.image_size} is no multiple of the patches of {self.architecture}")
        faults += [f"{field} is empty" for field in ("name", "data", "paper") if not getattr(self, field)]
        if not self.folder.startswith("https://") or self.folder.endswith("/"):
            faults.append(f"folder {self.folder!r} should be https://HOST/PATH without a slash at its end")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def images(self) -> str:
        """What was seen in training, by teachers too."""
        return self.data + (f"; {self.teacher}" if self.teacher else "")

    @property
    def url(self) -> str:
        """The file, or the page that it is published on."""
        return f"{self.folder}/{self.name}"

    @property
    def typed(self) -> str:
        """The name that `--init` takes: `timm:NAME.TAG`, `hf:OWNER/MODEL`, or an address."""
        if self.folder != HUB:
            return self.url
        owner, _, model = self.name.partition("/")
        return f"timm:{model}" if owner == "timm" else f"hf:{self.name}"
