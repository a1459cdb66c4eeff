"""mmsegmentation, imported once: what segmentation/ takes of it, with its known and harmless noise off.

Everything else it prints or warns of comes through.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from torch import nn

from engine.spec import MissingHostError

HARMLESS = (
    "Fail to import ``MultiScaleDeformableAttention``",  # mmcv-lite has no compiled op; UPerNet needs none
    "Default ``avg_non_ignore`` is False",  # the published recipe's choice, made in configs/upernet.py
    "For binary segmentation, we suggest",  # two classes train as well with two channels
)
HARMLESS_LINE = "Could not import OneDL"  # an optional service of the vendor


@contextmanager
def _quiet() -> Iterator[None]:
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(printed):
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message=message, category=UserWarning)
            yield
    finally:
        for line in printed.getvalue().splitlines():
            if line != HARMLESS_LINE:
                print(line)


try:
    with _quiet():
        from mmcv.cnn import build_norm_layer
        from mmcv.transforms import BaseTransform, RandomFlip, RandomResize, Resize
        from mmengine.config import ConfigDict
        from mmengine.logging import MMLogger
        from mmengine.optim import DefaultOptimWrapperConstructor
        from mmseg.datasets import (
            ADE20KDataset,
            BaseSegDataset,
            CityscapesDataset,
            COCOStuffDataset,
            PascalVOCDataset,
        )
        from mmseg.datasets.transforms import (
            LoadAnnotations,
            PackSegInputs,
            PhotoMetricDistortion,
            RandomCrop,
        )
        from mmseg.evaluation.metrics import IoUMetric
        from mmseg.models import EncoderDecoder
        from mmseg.models.data_preprocessor import SegDataPreProcessor
        from mmseg.models.decode_heads import UPerHead
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead
        from mmseg.models.necks import Feature2Pyramid
        from mmseg.registry import MODELS, OPTIM_WRAPPER_CONSTRUCTORS, TRANSFORMS
except ImportError as error:
    raise MissingHostError(f"segmentation needs mmsegmentation, which cannot be imported here ({error})") from error

__all__ = [
    "MODELS",
    "OPTIM_WRAPPER_CONSTRUCTORS",
    "TRANSFORMS",
    "ADE20KDataset",
    "BaseDecodeHead",
    "BaseSegDataset",
    "BaseTransform",
    "COCOStuffDataset",
    "CityscapesDataset",
    "ConfigDict",
    "DefaultOptimWrapperConstructor",
    "EncoderDecoder",
    "Feature2Pyramid",
    "IoUMetric",
    "LoadAnnotations",
    "PackSegInputs",
    "PascalVOCDataset",
    "PhotoMetricDistortion",
    "RandomCrop",
    "RandomFlip",
    "RandomResize",
    "Resize",
    "SegDataPreProcessor",
    "UPerHead",
    "build_model",
    "build_norm_layer",
]


def build_model(config: ConfigDict, *, initialise: bool = True) -> nn.Module:
    """Return mmseg's model for a config, with its initial weights unless only its shapes are wanted."""
    MMLogger.get_current_instance().setLevel("WARNING")  # it lists every parameter and how it was initialised
    with _quiet():
        model = MODELS.build(config)
        if initialise:
            model.init_weights()
    return model
