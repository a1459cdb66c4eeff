"""Every family of checkpoints by its declared name, one small file each."""

from backbones.sources import augreg, beit, detectron2, dino, huggingface, mae, mmpretrain, mmseg, moco_v3, own, timm
from backbones.sources.source import Source

SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        own.SOURCE,
        mae.SOURCE,
        timm.SOURCE,
        augreg.SOURCE,
        beit.SOURCE,
        moco_v3.SOURCE,
        moco_v3.MOMENTUM,
        dino.SOURCE,
        dino.STUDENT,
        huggingface.SOURCE,
        detectron2.SOURCE,
        mmseg.SOURCE,
        mmpretrain.SOURCE,
        mmpretrain.HALVES,
    )
}
