"""Segmentation of images of other than three channels: samples, the preprocessor, and checks of a data set."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmseg.structures import SegDataSample

from backbones.weights.normalisation import Normalisation
from segmentation.config import SegmentationConfig
from segmentation.data.check import check_ade20k
from segmentation.data.layout import open_folder, pairs_of
from segmentation.data.mapping import PairedImages, image_pipeline, train_pipeline, val_pipeline
from segmentation.recipes import tiny
from segmentation.task import segmentation_model
from tests.array_images import shares, write_label_maps


def test_samples_by_hand(tmp_path: Path) -> None:
    folder = open_folder(write_label_maps(tmp_path), "ade20k", channels=5)
    mapping = folder.val.label_mapping
    val = PairedImages(folder.val.pairs, folder.classes, val_pipeline(mapping, resize=(64, 64), channels=5))
    sample = val[0]
    stored = (shares(4) * 65535).astype(np.uint16).astype(np.float32) / 65535
    assert sample["inputs"].dtype == torch.float32 and val.image_id(0) == "4.npy"
    assert np.array_equal(sample["inputs"].numpy(), stored.transpose(2, 0, 1))  # of its own size, in its order
    # a crop of the image enlarged twice: image and labels stay together
    train = train_pipeline(
        mapping, crop=(32, 32), resize=(64, 64), resize_ratio=(2.0, 2.0), cat_max_ratio=1.0, channels=5
    )
    np.random.seed(0)
    torch.manual_seed(0)
    crop = PairedImages(folder.train.pairs, folder.classes, train)[1]
    label_HW = crop["data_samples"].gt_sem_seg.data[0].numpy()
    channel_HW = crop["inputs"][4].numpy()  # bright where the label is class 1, `odd`
    assert crop["inputs"].shape == (5, 32, 32)
    if (label_HW == 1).any() and (label_HW == 2).any():
        assert channel_HW[label_HW == 1].mean() > channel_HW[label_HW == 2].mean() + 0.3
    else:
        assert (channel_HW.mean() > 0.5) == (label_HW == 1).all()


def test_the_preprocessor_normalises_every_channel(config: SegmentationConfig) -> None:
    five = replace(config, backbone=replace(config.backbone, in_chans=5))
    normalisation = Normalisation((0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.5, 0.5, 0.5, 0.1))
    preprocessor = segmentation_model(five, num_classes=3, normalisation=normalisation).segmentor.data_preprocessor
    size = config.backbone.image_size
    image = torch.full((5, *size), 0.6)
    made = preprocessor({"inputs": [image], "data_samples": [SegDataSample()]})["inputs"]
    # not turned, as BGR is
    torch.testing.assert_close(made[0, :, 0, 0], torch.tensor([1.0, 0.8, 0.6, 0.4, 1.0]))


def test_layouts_of_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the layout voc is of RGB photographs, and the images have 5 channels"):
        pairs_of("voc", tmp_path, "train", 5)
    write_label_maps(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no image file \(\.jpg.* 4 \.npy arrays are there.*--in-chans"):
        open_folder(tmp_path, "ade20k")


def test_a_check_names_images_of_another_number(tmp_path: Path) -> None:
    write_label_maps(tmp_path)
    found = check_ade20k(tmp_path, channels=5, sheet=tmp_path / "sheet.png")
    assert found.faults == () and (tmp_path / "sheet.png").is_file()
    np.save(tmp_path / "images" / "training" / "1.npy", np.zeros((64, 64, 4), np.uint8))
    (fault,) = check_ade20k(tmp_path, channels=5).faults
    assert fault.startswith("training: 1 images are of another number of channels: ") and "1.npy" in fault
    assert any("4 .npy arrays are there" in fault for fault in check_ade20k(tmp_path).faults)


@pytest.mark.parametrize("channels", [1, 2, 13])
def test_any_number_of_channels_is_resized(tmp_path: Path, channels: int) -> None:
    image = np.random.default_rng(0).random((40, 50, channels), np.float32)
    image[..., -1] = 0.25
    np.save(tmp_path / "x.npy", image)
    sample: Any = {"img_path": str(tmp_path / "x.npy"), "image_id": "x"}
    for transform in image_pipeline(resize=(100, 80), channels=channels):
        sample = transform(sample)
    assert sample["inputs"].shape == (channels, 80, 100)
    assert torch.allclose(sample["inputs"][-1], torch.tensor(0.25))
    with pytest.raises(ValueError, match=r"in_chans is 600; segmentation takes 512 at most"):
        replace(tiny(), backbone=replace(tiny().backbone, in_chans=600))
