"""One entry of the table of public ViT checkpoints."""

from dataclasses import dataclass
from typing import Literal

SourceName = Literal[
    "mae", "timm", "augreg", "beit", "moco_v3", "dino", "dinov2", "ijepa", "huggingface", "detectron2", "mmseg", "own"
]
Contents = Literal["encoder", "encoder and decoder", "fine-tuned", "training checkpoint"]
Channels = tuple[float, float, float]

IMAGENET: tuple[Channels, Channels] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI_CLIP: tuple[Channels, Channels] = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
HALF: tuple[Channels, Channels] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True, kw_only=True)
class PublicCheckpoint:
    """One published weight file."""

    name: str
    """The file's name; of a model on the Hugging Face hub, whose files are all named alike, `owner/model`."""
    source: SourceName
    """What `--init-source` takes."""
    architecture: str
    """A name in `backbones.config.FAMILY`."""
    url: str
    """The file, or the page that it is published on."""
    contents: Contents
    """`fine-tuned` has a classifier or detector on top (supervised weights too); a `training checkpoint` has momentum
    copies, projections or an optimiser beside the encoder."""
    normalised_target: Literal["yes", "no", "not applicable"] | None
    """Whether pre-training reconstructed pixels normalised by patch (MAE, section 4); it does not apply elsewhere."""
    data: str
    epochs: int | None
    """Of pre-training, or of training where the weights are supervised; fine-tuning is not counted."""
    licence: str | None
    md5: str | None = None
    """The first digits of the file's MD5, as published."""
    mean: Channels = IMAGENET[0]
    std: Channels = IMAGENET[1]
    file: str | None = None
    """The name of the file to give the command, where it is not `name`."""

    @property
    def command(self) -> str:
        """The command that turns the file into a checkpoint of ours."""
        trust = " --trust-pickle" if self.name.endswith(".pkl") else ""
        return (
            f"python tools/convert_checkpoint.py convert {self.file or self.name} --init-source {self.source}{trust} "
            "--out backbone.safetensors"
        )
