"""The preprocessor goes where the model goes."""

from torch import nn

from backbones.weights.normalisation import IMAGENET
from segmentation.config import SegmentationConfig
from segmentation.task import segmentation_model
from tests.pretend_cuda import DEVICE, pretended


def test_a_module_that_holds_it_takes_it_along(config: SegmentationConfig) -> None:
    model = segmentation_model(config, num_classes=3, normalisation=IMAGENET)
    with pretended() as device:
        nn.Sequential(model).to(device)
        assert model.segmentor.data_preprocessor.device == DEVICE
