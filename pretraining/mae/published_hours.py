"""How long MAE's pre-training took its authors, beside which a plan's hours stand (arXiv 2111.06377)."""

from dataclasses import dataclass

from backbones.config import FAMILY
from pretraining.mae.config import MAEConfig, MaskTokenIn

SECTION, TABLE = "section 4.2", "table 2"


@dataclass(frozen=True)
class Measured:
    """A wall clock of the paper, on 128 TPU-v3 cores."""

    vit: str
    """Name in FAMILY."""
    epochs: int
    mask_token: MaskTokenIn
    decoder_depth: int
    hours: float
    source: str
    remark: str = ""

    def is_of(self, config: MAEConfig) -> bool:
        """Return whether the configuration is what was timed; the defaults of the paper were, for the rest."""
        length, rest = config.run.length, (config.run.batch_size, config.mask_ratio, config.repeats)
        return (
            FAMILY[self.vit] == config.backbone
            and (self.epochs, "epochs") == (length.value, length.unit)
            and (self.mask_token, self.decoder_depth) == (config.mask_token, config.decoder_depth)
            and rest == (4096, 0.75, 1)
        )

    def __str__(self) -> str:
        blocks = f"{self.decoder_depth} decoder block" + ("s" if self.decoder_depth > 1 else "")
        tokens = ", mask tokens in the encoder" if self.mask_token == "encoder" else ""
        remark = f", {self.remark}" if self.remark else ""
        return f"{self.hours:6.1f} hours: {self.epochs:,} epochs, {blocks}{tokens} ({self.source}{remark})"


MEASURED = (
    Measured("vit_large_patch16", 1600, "decoder", 8, 31.0, SECTION),
    Measured("vit_large_patch16", 800, "encoder", 8, 42.4, TABLE),
    Measured("vit_large_patch16", 800, "decoder", 8, 15.4, TABLE),
    Measured("vit_large_patch16", 800, "decoder", 1, 11.6, TABLE),
    Measured("vit_huge_patch14", 800, "encoder", 8, 119.6, TABLE, "estimated by the authors from 10 epochs"),
    Measured("vit_huge_patch14", 800, "decoder", 8, 34.5, TABLE),
    Measured("vit_huge_patch14", 800, "decoder", 1, 29.3, TABLE),
)


def published_hours(config: object) -> list[str]:
    """Return the published hours of a configuration's ViT as lines; none where there are none."""
    if not isinstance(config, MAEConfig):
        return []
    found = [one for one in MEASURED if FAMILY[one.vit] == config.backbone]
    if not found:
        return []
    head = "published by MAE's authors (arXiv 2111.06377) on other hardware, 128 TPU-v3 cores, of this ViT:"
    return [head, *(f"    {one}" + (", the setting planned here" if one.is_of(config) else "") for one in found)]
