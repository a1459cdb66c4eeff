"""mmseg's published MAE segmentor, made tiny, against ours: weights, losses, gradients, predictions, groups, rates."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mmseg
import mmseg.engine  # registers its constructors
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.sources import mmseg as source
from backbones.weights.normalisation import IMAGENET
from engine.training.schedule import lr_factor
from segmentation.config import HeadConfig, SegmentationConfig, SlideConfig
from segmentation.evaluation.inference import predict_batch, predict_images
from segmentation.host import MODELS, build_model
from segmentation.model.upernet import upernet
from segmentation.recipes import beit_base_640, mae_base_100ep, mae_base_mmseg, mae_large_100ep
from segmentation.task import SegmentationModel, segmentor_groups

CONFIGS = Path(mmseg.__file__).parent / ".mim/configs"
MAE_BASE = CONFIGS / "mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512.py"
BEIT_BASE = CONFIGS / "beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py"
BEIT_LARGE = CONFIGS / "beit/beit-large_upernet_8xb1-amp-160k_ade20k-640x640.py"
CLASSES = 7


def published() -> Config:
    """The published config with a backbone 16 wide and 4 deep on crops of 32 pixels, and without what is random."""
    config = Config.fromfile(MAE_BASE)
    nodes = config.model
    nodes.pretrained = None
    nodes.data_preprocessor.update(type="mmseg.SegDataPreProcessor", size=(32, 32))
    tiny = {"img_size": (32, 32), "patch_size": 8, "embed_dims": 16, "num_layers": 4, "num_heads": 2}
    nodes.backbone.update(**tiny, out_indices=[0, 1, 2, 3], drop_path_rate=0.0)
    nodes.neck.update(embed_dim=16, norm_cfg={"type": "BN"})
    nodes.decode_head.update(in_channels=[16] * 4, channels=8)
    nodes.auxiliary_head.update(in_channels=16, channels=8)
    for head in (nodes.decode_head, nodes.auxiliary_head):
        head.update(num_classes=CLASSES, norm_cfg={"type": "BN"}, dropout_ratio=0.0)
    nodes.test_cfg.update(crop_size=(32, 32), stride=(21, 21))
    return config


@pytest.fixture
def config() -> SegmentationConfig:
    """Ours for the same arguments."""
    recipe = mae_base_mmseg()
    return replace(
        recipe,
        backbone=ViTConfig(
            embed_dim=16,
            depth=4,
            num_heads=2,
            patch_size=8,
            image_size=(32, 32),
            relative_position="table",
            layer_scale=1.0,
        ),
        out_indices=(0, 1, 2, 3),
        head=HeadConfig(channels=8, aux_channels=8, dropout=0.0),
        drop_path=0.0,
        slide=SlideConfig(stride=21),
    )


def randomised(model: nn.Module) -> nn.Module:
    """The model with weights that make its answers vary from place to place."""
    generator = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        nn.init.normal_(parameter, std=1.0 if "conv_seg" in name else 0.3, generator=generator)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 2, generator=generator)
    return model


def in_our_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of mmseg's segmentor as ours has it."""
    vit = source.rename({name: tensor for name, tensor in state.items() if name.startswith("backbone.")}).state
    others = {name: tensor for name, tensor in state.items() if not name.startswith("backbone.")}
    return {f"backbone.vit.{name}": tensor for name, tensor in vit.items()} | others


def pair(config: SegmentationConfig) -> tuple[nn.Module, SegmentationModel]:
    """mmseg's segmentor and ours with the same weights; loading is strict, so names and shapes are the same."""
    theirs = randomised(build_model(published().model))
    ours = SegmentationModel(build_model(upernet(config, num_classes=CLASSES, normalisation=IMAGENET)))
    ours.segmentor.load_state_dict(in_our_names(theirs.state_dict()), strict=True)
    return theirs, ours


def batch(height: int = 32, width: int = 32, *, own: tuple[int, int] | None = None) -> dict[str, list]:
    """Two noisy images with labels, some of them ignored; `own` is the size before the images were resized."""
    rng = np.random.default_rng(3)
    samples = []
    for _ in range(2):
        label = rng.integers(0, CLASSES + 1, (1, height, width))
        sample = SegDataSample(metainfo={"img_shape": (height, width), "ori_shape": own or (height, width)})
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(np.where(label == CLASSES, 255, label)))
        samples.append(sample)
    images = [torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)) for _ in range(2)]
    return {"inputs": images, "data_samples": samples}


def test_losses_and_gradients(config: SegmentationConfig) -> None:
    theirs, ours = pair(config)
    theirs.train()
    ours.train()
    data = theirs.data_preprocessor(batch(), training=True)
    expected = {k: v for k, v in theirs.loss(data["inputs"], data["data_samples"]).items() if "loss" in k}
    made = ours(batch())
    assert made.keys() == expected.keys() == {"decode.loss_ce", "aux.loss_ce"}
    for name, value in made.items():
        assert value.item() == pytest.approx(expected[name].item(), rel=1e-5)  # float32, sums in another order
    sum(expected.values()).backward()
    sum(made.values()).backward()
    gradients = in_our_names({name: p.grad for name, p in theirs.named_parameters()})
    parameters = dict(ours.segmentor.named_parameters())
    assert gradients.keys() == parameters.keys()
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        # relative to the largest of all: a bias before a batch norm has a gradient of rounding alone
        difference = float((parameters[name].grad - gradient).abs().max())
        assert difference <= 1e-4 * float(gradient.abs().max()) + 1e-6 * largest, name
    statistics = in_our_names({n: t for n, t in theirs.state_dict().items() if "running" in n or "backbone" in n})
    for name, tensor in ours.segmentor.state_dict().items():
        if "running" in name:
            torch.testing.assert_close(tensor, statistics[name], rtol=1e-4, atol=1e-5)


def test_logits_and_predictions_of_whole_images(config: SegmentationConfig) -> None:
    theirs, ours = pair(config)
    theirs.test_cfg.update(mode="whole")
    ours.segmentor.test_cfg.update(mode="whole")
    theirs.eval()
    ours.eval()
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    metas = [{"img_shape": (32, 32), "ori_shape": (32, 32)}] * 2
    with torch.no_grad():
        expected = theirs.encode_decode(image, metas)
        made = ours.segmentor.encode_decode(image, metas)
        # float32, sums in another order, relative to the largest
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
        classes = predict_images(ours.segmentor, image, (32, 32))
    assert (classes == expected.argmax(dim=1)).float().mean() > 0.999


@pytest.mark.parametrize("size", [(32, 32), (45, 36), (33, 71)])
def test_predictions_by_windows(config: SegmentationConfig, size: tuple[int, int]) -> None:
    theirs, ours = pair(config)
    theirs.eval()
    ours.eval()
    data = batch(*size, own=(50, 61))
    made = predict_batch(ours.segmentor, copy.deepcopy(data))
    with torch.no_grad():
        expected = [sample.pred_sem_seg.data[0] for sample in theirs.test_step(data)]
    for mine, host in zip(made, expected, strict=True):
        assert mine.shape == (50, 61) and len(host.unique()) > 1
        assert (mine == host).float().mean() > 0.999  # a tie within float32 noise may fall either way


def test_parameter_groups(config: SegmentationConfig) -> None:
    theirs, ours = pair(config)
    settings = published().optim_wrapper
    settings.constructor = f"mmseg.{settings.constructor}"
    settings.paramwise_cfg.num_layers = 4
    with pytest.warns(UserWarning, match="DeprecationWarning"):
        groups = build_optim_wrapper(theirs, copy.deepcopy(settings)).optimizer.param_groups
    # a name is found again by the number in its place
    named = list(theirs.named_parameters())
    numbers = in_our_names({name: torch.full_like(p, number) for number, (name, p) in enumerate(named)})
    our_name = {named[int(tensor.flatten()[0])][0]: f"segmentor.{name}" for name, tensor in numbers.items()}
    expected = {
        our_name[name]: (group["lr_scale"], group["weight_decay"], group["lr"])
        for group in groups
        for name in group["param_names"]
    }
    optim = config.run.optim
    assert (settings.optimizer.lr, settings.optimizer.betas) == (optim.lr(16), optim.betas)

    def of(config: SegmentationConfig) -> dict[str, tuple[float, float, float]]:
        made = segmentor_groups(ours, config, optim)
        return {n: (g.lr_scale, g.weight_decay, optim.lr(16) * g.lr_scale) for g in made for n in g.names}

    published_rule = of(config)
    assert published_rule.keys() == expected.keys()
    for name, values in published_rule.items():
        assert values == pytest.approx(expected[name], rel=1e-12), name
    # what mmseg's constructor means to exempt, and does not for want of `backbone.` in the names that it looks for
    intended = of(replace(config, no_weight_decay="vectors_and_embeddings"))
    differ = {name for name in expected if intended[name] != pytest.approx(expected[name])}
    assert differ == {"segmentor.backbone.vit.pos_embed", "segmentor.backbone.vit.cls_token"}
    assert {expected[name][1] for name in differ} == {0.05} and {intended[name][1] for name in differ} == {0.0}


@pytest.mark.parametrize(("recipe", "path"), [(mae_base_mmseg, MAE_BASE), (beit_base_640, BEIT_BASE)])
def test_numbers_of_the_published_files(recipe: Callable[[], SegmentationConfig], path: Path) -> None:
    ours, theirs = recipe(), Config.fromfile(path)
    nodes, optimizer, optim = theirs.model, theirs.optim_wrapper.optimizer, ours.run.optim
    assert tuple(nodes.backbone.out_indices) == ours.out_indices
    assert nodes.backbone.drop_path_rate == ours.drop_path
    assert nodes.backbone.init_values == ours.backbone.layer_scale
    assert tuple(nodes.backbone.img_size) == ours.backbone.image_size == tuple(nodes.test_cfg.crop_size)
    assert ours.slide is not None and tuple(nodes.test_cfg.stride) == (ours.slide.stride, ours.slide.stride)
    assert (nodes.decode_head.channels, nodes.auxiliary_head.channels) == (ours.head.channels, ours.head.aux_channels)
    assert nodes.auxiliary_head.loss_decode.loss_weight == ours.head.aux_weight
    assert nodes.decode_head.dropout_ratio == ours.head.dropout
    assert 8 * theirs.train_dataloader.batch_size == ours.run.batch_size
    assert (optimizer.lr, optimizer.weight_decay, optimizer.betas) == (optim.lr(16), optim.weight_decay, optim.betas)
    assert theirs.optim_wrapper.paramwise_cfg.layer_decay_rate == optim.layer_decay
    assert theirs.train_cfg.max_iters == ours.run.length.value
    warmup, decay = theirs.param_scheduler
    assert (warmup.start_factor, warmup.end) == (ours.run.schedule.warmup_start, ours.run.schedule.warmup.value)
    assert (decay.power, decay.eta_min) == (ours.run.schedule.power, ours.run.schedule.final)


def test_rate_at_every_step() -> None:
    run, settings = mae_base_mmseg().run, published().param_scheduler
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = [PARAM_SCHEDULERS.build({**node, "optimizer": optimizer}) for node in settings]
    total, warmup = int(run.length.value), int(run.schedule.warmup.value)
    theirs = np.empty(total)
    for step in range(total):
        theirs[step] = optimizer.param_groups[0]["lr"]
        for scheduler in schedulers:
            scheduler.step()
    ours = np.array([lr_factor(run.schedule, step, total_steps=total, warmup_steps=warmup) for step in range(total)])
    # the departure that the recipes state: mmengine rises over 1,499 steps and falls over 158,499
    step = np.arange(total)
    rise = 1e-6 + (1 - 1e-6) * step / (warmup - 1)
    np.testing.assert_allclose(
        theirs, np.where(step < warmup, rise, 1 - (step - warmup) / (total - warmup - 1)), atol=1e-9
    )
    assert np.abs(ours - theirs).max() == pytest.approx(1 / 1500, rel=1e-3)
    assert (ours[0], theirs[0]) == (1e-6, 1e-6) and theirs[-1] == pytest.approx(0, abs=1e-12)


def count_on_meta(build: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> int:
    """Parameters of a model that takes no memory."""
    linspace = torch.linspace
    # mmseg reads its drop path rates out of a tensor, which must have values
    monkeypatch.setattr(torch, "linspace", lambda *args, **kwargs: linspace(*args, **{**kwargs, "device": "cpu"}))
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build().parameters())


def mmseg_mae_base() -> Config:
    return Config.fromfile(MAE_BASE).model


def mmseg_beit_base() -> Config:
    return Config.fromfile(BEIT_BASE).model


def mmseg_mae_large() -> Config:
    """mmseg publishes no MAE-L: the neck and heads of its BEiT-L on its MAE class."""
    nodes = Config.fromfile(BEIT_LARGE).model
    nodes.backbone.update(type="MAE", img_size=(512, 512))
    nodes.backbone.pop("qv_bias")
    return nodes


@pytest.mark.parametrize(
    ("recipe", "nodes_of", "more"),
    [
        (mae_base_mmseg, mmseg_mae_base, 0),
        (beit_base_640, mmseg_beit_base, 0),
        (mae_base_100ep, mmseg_mae_base, 2 * 12 * 768),  # its layer scales
        (mae_large_100ep, mmseg_mae_large, 2 * 24 * 1024),
    ],
)
def test_parameter_counts(
    recipe: Callable[[], SegmentationConfig],
    nodes_of: Callable[[], Config],
    more: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = nodes_of()
    nodes.pretrained = None
    nodes.data_preprocessor.type = "mmseg.SegDataPreProcessor"
    theirs = count_on_meta(lambda: MODELS.build(nodes), monkeypatch)
    mine = upernet(recipe(), num_classes=150, normalisation=IMAGENET)
    assert count_on_meta(lambda: MODELS.build(mine), monkeypatch) == theirs - more > 100_000_000
