"""Whole and sliding inference, scales and flips: equal to mmseg's own on tiny random weights."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from backbones.weights.normalisation import Normalisation
from engine.training.seeding import seed_all
from segmentation.config import SegmentationConfig, SlideConfig
from segmentation.evaluation import inference
from segmentation.evaluation.inference import best_class, predict_images, slide
from segmentation.evaluation.resized import needed, resized, resized_region
from segmentation.host import EncoderDecoder, build_model
from segmentation.model.upernet import upernet
from segmentation.model.upsampled import conv_after_deconv, conv_of_upsampled, fused_features
from segmentation.task import build_task


def segmentor_of(config: SegmentationConfig, classes: int = 7) -> EncoderDecoder:
    """A segmentor with random weights, its batch norms too."""
    seed_all(0)
    return scrambled(build_model(upernet(config, num_classes=classes, normalisation=Normalisation())))


def scrambled(segmentor: EncoderDecoder) -> EncoderDecoder:
    """The segmentor with weights that make its predictions vary from place to place."""
    for module in segmentor.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    torch.nn.init.normal_(segmentor.decode_head.conv_seg.weight)
    return segmentor.eval()


@pytest.mark.parametrize(("coarse", "fine"), [((3, 5), (6, 10)), ((2, 2), (8, 8)), ((1, 1), (8, 4)), ((5, 3), (7, 11))])
def test_convolution_before_enlargement_is_the_same(coarse: tuple[int, int], fine: tuple[int, int]) -> None:
    torch.manual_seed(0)
    small = torch.randn(2, 4, *coarse, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(6, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    ours = conv_of_upsampled(small, weight, fine)
    theirs = F.conv2d(F.interpolate(small, size=fine, mode="bilinear"), weight, padding=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(out.square().sum(), (small, weight)) for out in (ours, theirs)]
    for mine, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-11, atol=1e-11)


def test_deconvolution_and_convolution_are_one() -> None:
    torch.manual_seed(0)
    deconv = torch.nn.ConvTranspose2d(5, 4, kernel_size=2, stride=2, dtype=torch.float64)
    weight = torch.randn(6, 4, 1, 1, dtype=torch.float64)
    small = torch.randn(2, 5, 3, 7, dtype=torch.float64)
    made = conv_after_deconv(small, deconv, weight)
    torch.testing.assert_close(made, F.conv2d(deconv(small), weight), rtol=1e-12, atol=1e-12)


def test_features_of_the_head_equal_mmseg(config: SegmentationConfig) -> None:
    segmentor = segmentor_of(config)
    with torch.no_grad():
        maps = segmentor.backbone(torch.randn(2, 3, 40, 24))
        ours = fused_features(segmentor.neck, segmentor.decode_head, maps)
        theirs = segmentor.decode_head._forward_feature(segmentor.neck(maps))
    # float32 sums of some hundred terms in another order
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_as_exact_as_mmsegs(config: SegmentationConfig) -> None:
    segmentor = segmentor_of(config).train()
    exact = copy.deepcopy(segmentor).double()
    maps = [torch.randn(2, 16, 8, 8) for _ in range(4)]
    with torch.no_grad():
        expected = exact.decode_head._forward_feature(exact.neck([map_BChw.double() for map_BChw in maps]))
        with torch.autocast("cpu", torch.bfloat16):
            ours = fused_features(segmentor.neck, segmentor.decode_head, maps)
            theirs = segmentor.decode_head._forward_feature(segmentor.neck(maps))
    errors = [float((features.double() - expected).square().mean().sqrt()) for features in (ours, theirs)]
    assert errors[0] < 1.2 * errors[1]  # some three more roundings of a sum


@pytest.mark.parametrize("size", [(32, 32), (48, 72), (24, 64), (16, 16)])
def test_slide_and_whole_equal_mmseg(config: SegmentationConfig, size: tuple[int, int]) -> None:
    segmentor = segmentor_of(replace(config, slide=SlideConfig(stride=21)))
    image = torch.randn(2, 3, *size)
    metas = [{"img_shape": size, "ori_shape": size} for _ in range(2)]
    with torch.no_grad():
        windows = slide(segmentor, image, crop=(32, 32), stride=(21, 21)).logits(slice(None))
        whole = slide(segmentor, image, crop=size, stride=size).logits(slice(None))
        their_slide = segmentor.slide_inference(image, copy.deepcopy(metas))
        their_whole = segmentor.encode_decode(image, metas)
    for ours, theirs in ((windows, their_slide), (whole, their_whole)):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)  # float32, sums in another order


def test_many_windows_run_in_parts(config: SegmentationConfig, monkeypatch) -> None:
    segmentor = segmentor_of(config)
    image = torch.randn(2, 3, 48, 72)
    with torch.no_grad():
        together = slide(segmentor, image, crop=(32, 32), stride=(8, 8)).logits(slice(None))
        monkeypatch.setattr("segmentation.evaluation.inference.WINDOWS_AT_ONCE", 3)
        apart = slide(segmentor, image, crop=(32, 32), stride=(8, 8)).logits(slice(None))
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, SlideConfig(stride=21)])
def test_predictions_equal_mmseg_with_padding(config: SegmentationConfig, write_folder, window) -> None:
    seed_all(0)
    task = build_task(replace(config, slide=window, resize=(45, 36)), data=write_folder(), init=None)
    scrambled(task.model.segmentor)
    batch = task.collate([task.val_data[i] for i in range(3)])  # 45 x 36 pixels, padded to 48 x 40
    ours = task.model.predict(copy.deepcopy(batch))
    with torch.no_grad():
        theirs = [sample.pred_sem_seg.data[0] for sample in task.model.segmentor.test_step(batch)]
    for mine, host in zip(ours, theirs, strict=True):
        assert mine.dtype == torch.uint8 and len(host.unique()) > 1
        # a tie within float32 noise may fall either way
        assert (mine == host).float().mean() > 0.999


def test_scales_and_flips_average_the_softmax(config: SegmentationConfig) -> None:
    segmentor = segmentor_of(config)
    image = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        views = []
        for height, width in ((16, 24), (32, 48), (48, 72)):
            seen = F.interpolate(image, size=(height, width), mode="bilinear")
            for mirrored in (False, True):
                logits = segmentor.encode_decode(seen.flip(3) if mirrored else seen, [{"img_shape": (height, width)}])
                logits = F.interpolate(logits.flip(3) if mirrored else logits, size=(30, 50), mode="bilinear")
                views.append(logits.softmax(dim=1))
        ours = predict_images(segmentor, image, (30, 50), scales=(0.5, 1.0, 1.5), flip=True)
    expected = torch.stack(views).mean(dim=0).argmax(dim=1)
    assert (ours == expected).float().mean() > 0.999
    # a model that is asked about an image and its mirror image answers with the same, mirrored
    with torch.no_grad():
        mirrored = predict_images(segmentor, image.flip(3), (30, 50), scales=(0.5, 1.0, 1.5), flip=True)
    assert (ours == mirrored.flip(2)).float().mean() > 0.999


def test_best_class_is_argmax() -> None:
    torch.manual_seed(0)
    score = torch.randint(0, 4, (2, 9, 5, 6)).float()  # many ties: the first class wins
    assert torch.equal(best_class(score.split(4, dim=1)), score.argmax(dim=1).to(torch.uint8))


def test_images_of_one_size_run_together(config: SegmentationConfig, write_folder) -> None:
    seed_all(0)
    task = build_task(config, data=write_folder(), init=None)
    task.model.eval()
    samples = [task.val_data[i] for i in range(3)]
    samples[1]["inputs"] = samples[1]["inputs"][:, :24]
    seen: list[int] = []
    task.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    together = task.model.predict(task.collate(samples))
    assert seen == [2, 1]  # the first and the third image, though another lies between
    for sample, prediction in zip(samples, together, strict=True):
        assert (task.model.predict(task.collate([sample]))[0] == prediction).float().mean() > 0.999


def level(segmentor: EncoderDecoder, image: torch.Tensor) -> None:
    """Put all classes on one level, about 1 apart, so that all are answers somewhere."""
    logits = slide(segmentor, image, crop=(32, 32), stride=(21, 21)).logits(slice(None))
    last = segmentor.decode_head.conv_seg
    last.weight /= logits.std(dim=(0, 2, 3))[:, None, None, None]
    last.bias.copy_((last.bias - logits.mean(dim=(0, 2, 3))) / logits.std(dim=(0, 2, 3)))


@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.25)])
@torch.no_grad()
def test_large_images_are_predicted_a_class_at_a_time(config: SegmentationConfig, monkeypatch, scales) -> None:
    segmentor = segmentor_of(replace(config, slide=SlideConfig(stride=21)), classes=13)
    image, size = torch.randn(2, 3, 48, 72), (96, 151)
    level(segmentor, image)
    expected = predict_images(segmentor, image, size, scales=scales, flip=len(scales) > 1)
    assert len(expected.unique()) > 2
    for at_once in (2 * 96 * 151 * 3, 1):  # three classes at a time, one
        monkeypatch.setitem(inference.SCORES_AT_ONCE, "cpu", at_once)
        assert torch.equal(predict_images(segmentor, image, size, scales=scales, flip=len(scales) > 1), expected)


@pytest.mark.parametrize(("scales", "flip"), [((1.0,), False), ((0.75, 1.25), True)])
@pytest.mark.parametrize("window", [None, SlideConfig(stride=21)])
@pytest.mark.parametrize("size", [(48, 75), (45, 72), (6, 100)])
@torch.no_grad()
def test_regions_are_parts_of_the_whole(config: SegmentationConfig, monkeypatch, size, window, scales, flip) -> None:
    segmentor = segmentor_of(replace(config, slide=window), classes=13)
    image = torch.randn(2, 3, 45, 72)  # the last rows are padded
    level(segmentor, image)
    expected = predict_images(segmentor, image, size, scales=scales, flip=flip)
    assert len(expected.unique()) > 2
    monkeypatch.setattr(inference, "SCORES_HELD", 0)
    for pixels in (17 * size[1], size[1] // 2 + 1)[: 1 if size[0] > 6 else 2]:  # bands of rows, and halves of one
        monkeypatch.setitem(inference.SCORES_OF_REGION, "cpu", 2 * 13 * pixels)
        given = predict_images(segmentor, image, size, scales=scales, flip=flip)
        # some sizes are enlarged by another kernel of PyTorch, so that a tie within a rounding may fall either way
        assert (given == expected).float().mean() > 0.9999


@torch.no_grad()
def test_windows_are_held_while_a_band_touches_them(config: SegmentationConfig, monkeypatch) -> None:
    """Of 13 rows of windows, 5 wide, those that lie over a band are held, and each window runs once."""
    monkeypatch.setattr(inference, "WINDOWS_AT_ONCE", 5)
    monkeypatch.setattr(inference, "SCORES_HELD", 0)
    monkeypatch.setitem(inference.SCORES_OF_REGION, "cpu", 7 * 128 * 16)
    segmentor = segmentor_of(replace(config, slide=SlideConfig(stride=24)))
    ran: list[int] = []
    held: list[int] = []
    segmentor.backbone.register_forward_pre_hook(lambda _, inputs: ran.append(len(inputs[0])))
    over = inference.Windows.over

    def counted(self, rows):
        found = over(self, rows)
        held.append(len(self.held))
        return found

    monkeypatch.setattr(inference.Windows, "over", counted)
    predict_images(segmentor, torch.randn(1, 3, 320, 128), (320, 128))
    assert sum(ran) == 13 * 5 and len(held) == 20 and max(held) <= 3 * 5


def test_a_region_is_resized_as_the_whole() -> None:
    torch.manual_seed(0)
    for of, size in (((16, 40), (97, 77)), ((128, 30), (512, 30)), ((100, 90), (33, 200)), ((1, 9), (40, 1))):
        score = torch.randn(2, 3, *of)
        whole = resized(score, size)
        for rows, columns in (((0, size[0]), (0, size[1])), ((size[0] // 3, size[0]), (0, max(1, size[1] // 2)))):
            down, across = needed(rows, of[0], size[0]), needed(columns, of[1], size[1])
            part = score[:, :, slice(*down), slice(*across)]
            given = resized_region(part, (down[0], across[0]), of, size, rows, columns)
            expected = whole[:, :, slice(*rows), slice(*columns)]
            torch.testing.assert_close(given, expected, rtol=1e-6, atol=2e-6)  # one rounding of float32 more or less
