"""A fine-tuned checkpoint of any family, head included, scored without training: what timm's `validate` does."""

from collections.abc import Callable
from contextlib import closing

import torch
from lightning_fabric import Fabric
from torch import nn
from torchvision.datasets import ImageFolder

from backbones.normalise import Normalise
from backbones.vit import ViT
from backbones.weights.checkpoint import Checkpoint
from backbones.weights.declaration import InitialWeights
from backbones.weights.initial import start_from
from backbones.weights.normalisation import Normalisation
from backbones.weights.read import read_checkpoint
from classification.data import LabelledImages, collate
from classification.heads import Classifier
from engine.config import Workers
from engine.records.results_file import ImageResult
from engine.training.ahead import on_device
from engine.training.data import eval_batches, loading_for

EVA_CLIP_WIDTHS = (512, 768, 1024)  # of the space that images and texts share (timm's eva02_*_clip_*)


def classifier_of(init: InitialWeights) -> tuple[Classifier, Normalisation]:
    """Return the whole classifier that a checkpoint holds, in eval mode, and what its pixels are normalised with.

    `fc_norm` means a head on the mean of the patch tokens, the final norm a head on the class token (the heads of timm,
    MAE, BEiT and DeiT). Raises ValueError where there is no head, or one that two tokens share (distillation).
    """
    checkpoint = read_checkpoint(init)
    _check_head(checkpoint)
    state = checkpoint.state
    pooled = "fc_norm.weight" in state
    vit = ViT(checkpoint.architecture, class_token="cls_token" in state, final_norm=not pooled)
    _, normalisation = start_from(vit, init, checkpoint)
    model = Classifier(
        vit,
        num_classes=state["head.weight"].shape[0],
        head_std=0.02,
        label_smoothing=0.0,
        pooling="mean" if pooled else "class",
        norm=None if pooled else nn.Identity(),
        normalise=Normalise(normalisation),
    )
    for part, module in (("head", model.head), ("fc_norm", model.fc_norm)):
        module.load_state_dict({name: state[f"{part}.{name}"] for name in module.state_dict()})
    return model.eval(), normalisation


def top_predictions(
    logits: Callable[[torch.Tensor], torch.Tensor],
    data: LabelledImages,
    *,
    fabric: Fabric,
    batch_size: int,
    workers: Workers,
    kept: list[int],
) -> tuple[list[ImageResult], list[str]]:
    """Return label and five likeliest classes per image, and one line per image that cannot be read.

    `logits` is given the images as the view makes them, on the device, and `workers` processes read them. `kept` are
    the logits that compete, by class of `data`: those of a subset of the classes that a model knows. Raises ValueError
    where no image can be read.
    """
    results: list[ImageResult] = []
    unreadable: list[str] = []
    index = torch.tensor(kept)
    loaded = eval_batches(data, collate, batch_size=batch_size, loading=loading_for(workers, fabric.device))
    with closing(on_device(loaded, fabric)) as batches:
        for batch in batches:
            unreadable += [str(error) for error in batch.unreadable]
            if not batch.ids:
                continue
            pixels_BCHW, label_B = batch.data
            with torch.no_grad():
                logits_BK = logits(pixels_BCHW).float().cpu()[:, index]
            order = logits_BK.topk(min(5, len(kept)), dim=1).indices.tolist()
            results += [
                ImageResult(image_id, {"label": label, "top5": top})
                for image_id, label, top in zip(batch.ids, label_B.tolist(), order, strict=True)
            ]
    if not results:
        raise ValueError(f"{data.root}: none of its {len(data)} images can be read; the first: {unreadable[0]}")
    return results, unreadable


def top_scores(results: list[ImageResult]) -> dict[str, float]:
    """Return top1 and top5 in percent. Raises ValueError where no image could be read."""
    if not results:
        raise ValueError("no image could be evaluated.")
    first = sum(r.values["label"] == r.values["top5"][0] for r in results)
    five = sum(r.values["label"] in r.values["top5"] for r in results)
    return {"top1": 100 * first / len(results), "top5": 100 * five / len(results)}


def class_positions(folder: ImageFolder, classes: list[str]) -> list[int]:
    """Return where each class of `folder` is among `classes`. Raises ValueError for one that is not."""
    where = {name: i for i, name in enumerate(classes)}
    if unknown := [name for name in folder.classes if name not in where]:
        raise ValueError(
            f"{folder.root}: {len(unknown)} of its {len(folder.classes)} class folders are none of the model's "
            f"{len(classes)} classes: {', '.join(unknown[:5])}; the model's begin with {', '.join(classes[:3])}."
        )
    return [where[name] for name in folder.classes]


def _check_head(checkpoint: Checkpoint) -> None:
    if "head_dist.weight" in checkpoint.state:
        raise ValueError(f"{checkpoint.path}: has two heads (distillation), which are not scored here.")
    if "head.weight" not in checkpoint.state:
        raise ValueError(
            f"{checkpoint.path}: has no head to score; train one (tools/train_cls.py), or probe (tools/probe.py)."
        )
    bias = checkpoint.state.get("head.bias")
    clip = checkpoint.architecture.pre_norm and (bias is None or not bias.any())  # as timm converts CLIP's `proj`
    rows = checkpoint.state["head.weight"].shape[0]
    if clip or (checkpoint.architecture.attention_norm and rows in EVA_CLIP_WIDTHS):
        raise ValueError(
            f"{checkpoint.path}: its head is CLIP's projection of the image to the space that it shares with texts (a "
            f"head without a bias, or with one of zeros; {rows} rows in EVA-02's CLIP), and no classifier; train one "
            "(tools/train_cls.py), or probe (tools/probe.py)."
        )
    if "fc_norm.weight" not in checkpoint.state and "norm.weight" not in checkpoint.state:
        raise ValueError(f"{checkpoint.path}: has neither fc_norm nor norm, so what its head reads is unknown.")
    if "fc_norm.weight" not in checkpoint.state and "cls_token" not in checkpoint.state:
        raise ValueError(f"{checkpoint.path}: has no class token for its head to read.")
