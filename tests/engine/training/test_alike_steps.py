"""What follows from steps that are all alike (static graph, timed convolutions), and channels last: the same steps."""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import IMAGENET
from classification.recipes import tiny as tiny_classification
from classification.task import build_task
from detection.model.backbone import ViTPyramid
from engine.config import Duration, RunConfig
from engine.device import _strategy, has_static_graph, timed_convolutions
from engine.training.block_modes import carry_out_as, channels_last
from engine.training.loop import fit
from pretraining.mae.task import MAETask
from scenes.layouts import ScenesIndex
from segmentation.host import build_model
from segmentation.model.upernet import upernet
from segmentation.recipes import tiny as tiny_segmentation
from segmentation.recipes import tiny_eomt
from segmentation.task import SegmentationTask

REPOSITORY = Path(__file__).resolve().parents[3]
TINY = ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32))
RUN = tiny_classification().run
SCRIPT = """
import sys
from dataclasses import replace
import torch
import torch.distributed as dist
import segmentation.model.backbone  # registers the ViT
from torch.nn.parallel import DistributedDataParallel
from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import IMAGENET
from classification.heads import Classifier
from engine.device import _strategy
from pretraining.mae.model import MaskedAutoencoder
from segmentation.host import build_model
from segmentation.model.upernet import upernet
from segmentation.recipes import tiny

dist.init_process_group("gloo")
a = ViTConfig(embed_dim=16, depth=4, num_heads=2, patch_size=8, image_size=(32, 32))
generator = torch.Generator().manual_seed(dist.get_rank())

def image():
    return torch.randn(2, 3, 32, 32, generator=generator)

def mae():
    sizes = {"decoder_dim": 12, "decoder_depth": 2, "decoder_heads": 3}
    model = MaskedAutoencoder(ViT(a), mask_ratio=0.75, normalise_target=True, **sizes)
    return model, lambda: (image(), torch.rand(2, 16, generator=generator), [])

def classifier():
    model = Classifier(ViT(a, drop_path=0.5), num_classes=3, head_std=0.02, label_smoothing=0.1)
    return model, lambda: (image(), torch.randint(0, 3, (2,), generator=generator), [])

class Dense(torch.nn.Module):
    def __init__(self):
        super().__init__()
        config = tiny()
        head = replace(config.head, channels=8, aux_channels=8)
        config = replace(config, backbone=a, head=head, out_indices=(0, 1, 2, 3), drop_path=0.5)
        self.segmentor = build_model(upernet(config, num_classes=3, normalisation=IMAGENET))

    def forward(self, image_BCHW):
        features = self.segmentor.extract_feat(image_BCHW)
        heads = self.segmentor.decode_head, self.segmentor.auxiliary_head
        return {str(n): head(features).square().mean() for n, head in enumerate(heads)}

def dense():
    return Dense(), image

for make in (mae, classifier, dense):
    after = []
    for static in (False, True):
        generator.manual_seed(dist.get_rank())
        torch.manual_seed(0)
        model, batch = make()
        options = _strategy("ddp", 2, "32-true", static_graph=static)._ddp_kwargs
        ddp = DistributedDataParallel(model, bucket_cap_mb=0.02, **options)
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for step in range(3):
            torch.manual_seed(step)
            sum(ddp(batch()).values()).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        after.append({name: value.clone() for name, value in model.state_dict().items()})
    assert after[0].keys() == after[1].keys()
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0]), make.__name__
    print(make.__name__, len(after[0]), flush=True)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_static_graph_takes_the_same_steps(tmp_path: Path) -> None:
    """To the bit, in two gloo processes, for the three kinds of models that it is set for."""
    script = tmp_path / "steps.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(script)], cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[:4000]
    assert sorted({line.split()[0] for line in done.stdout.splitlines()}) == ["classifier", "dense", "mae"]


class Alike:
    steps_alike = True


@pytest.mark.parametrize(
    ("task", "change", "expected"),
    [
        (Alike(), {}, True),
        (Alike(), {"accumulate": 2}, False),
        (Alike(), {"compile": True}, False),
        (object(), {}, False),
    ],
)
def test_where_the_graph_is_static(task: Any, change: dict[str, Any], expected: bool) -> None:
    assert has_static_graph(task, replace(RUN, **change)) is expected


def test_which_tasks_have_steps_that_are_alike() -> None:
    made = [SegmentationTask.__new__(SegmentationTask) for _ in range(2)]
    made[0].config, made[1].config = tiny_segmentation(), tiny_eomt()
    assert [task.steps_alike for task in made] == [True, False]
    assert MAETask.steps_alike
    assert _strategy("ddp", 2, "32-true", static_graph=True)._ddp_kwargs["static_graph"] is True  # type: ignore[union-attr]


def test_convolutions_are_timed_in_training_alone(few_scenes: ScenesIndex, tmp_path: Path) -> None:
    config = tiny_classification()
    run = replace(config.run, length=Duration(1), batch_size=4, device="cpu", precision="32-true")
    for deterministic in (False, True):
        config = replace(config, run=replace(run, deterministic=deterministic))
        task = build_task(config, data=few_scenes.imagenet, init=None)
        seen: dict[bool, bool] = {}
        task.model.backbone.register_forward_pre_hook(
            lambda module, _, seen=seen: seen.update({module.training: torch.backends.cudnn.benchmark})
        )
        before = torch.backends.cudnn.benchmark
        fit(task, config, recipe="tiny", out=tmp_path / str(deterministic))
        assert seen == {True: not deterministic, False: False}
        assert torch.backends.cudnn.benchmark is before


def test_the_choice_is_put_back_after_an_error() -> None:
    before = torch.backends.cudnn.benchmark
    with pytest.raises(KeyError), timed_convolutions(not before):
        assert torch.backends.cudnn.benchmark is not before
        raise KeyError
    assert torch.backends.cudnn.benchmark is before


class Segmentor(nn.Module):
    """UPerNet with both heads."""

    def __init__(self) -> None:
        super().__init__()
        config = tiny_segmentation()
        head = replace(config.head, channels=8, aux_channels=8, dropout=0.0)
        config = replace(config, backbone=TINY, head=head, out_indices=(0, 1, 2, 3), drop_path=0.0)
        self.segmentor = build_model(upernet(config, num_classes=3, normalisation=IMAGENET))

    def forward(self, image_BCHW: torch.Tensor) -> list[torch.Tensor]:
        features = self.segmentor.extract_feat(image_BCHW)
        return [self.segmentor.decode_head(features), self.segmentor.auxiliary_head(features)]


class Detector(nn.Module):
    """ViTDet's pyramid."""

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = ViTPyramid(ViT(TINY, class_token=False, final_norm=False), out_channels=8)

    def forward(self, image_BCHW: torch.Tensor) -> list[torch.Tensor]:
        return list(self.pyramid(image_BCHW).values())


@pytest.mark.parametrize("make", [Segmentor, Detector])
def test_channels_last_changes_no_number(make: type[nn.Module]) -> None:
    torch.manual_seed(0)
    plain = make().train()
    turned = copy.deepcopy(plain)
    names = channels_last(turned)
    assert names and not any("patch_embed" in name for name in names)
    weights = dict(turned.named_parameters())
    for name, value in weights.items():
        if value.dim() == 4 and value.shape[2] > 1 and "patch_embed" not in name:
            assert value.is_contiguous(memory_format=torch.channels_last) and not value.is_contiguous(), name
    image = torch.randn(2, 3, 32, 32)
    outputs = []
    for model in (plain, turned):
        outputs.append(model(image))
        torch.stack([y.square().mean() for y in outputs[-1]]).sum().backward()
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)  # sums of convolutions in another order
    for name, value in plain.named_parameters():
        assert value.grad is not None
        torch.testing.assert_close(weights[name].grad, value.grad, rtol=1e-3, atol=1e-5)


def test_a_vit_alone_and_a_run_on_a_cpu_stay_as_they_are() -> None:
    assert channels_last(ViT(TINY)) == [] and channels_last(nn.Conv2d(3, 4, 3)) == []
    model = Detector()
    carry_out_as(RUN, model, torch.device("cpu"))
    assert all(value.is_contiguous() for value in model.parameters())
    fsdp: RunConfig = replace(RUN, strategy="fsdp")
    carry_out_as(fsdp, model, torch.device("cuda"))
    assert all(value.is_contiguous() for value in model.parameters())
    carry_out_as(RUN, model, torch.device("cuda"))
    assert not all(value.is_contiguous() for value in model.parameters())
