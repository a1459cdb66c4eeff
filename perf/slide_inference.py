"""Time of sliding-window inference on one image, against mmsegmentation's own on the same weights.

    python perf/slide_inference.py [--architecture vit_base_patch16] [--repeats 3] [--bf16]

One image of 512 x 683 pixels, 150 classes, windows of 512 pixels every 341, float32, the same threads for both; mmseg's
`EncoderDecoder.predict` against `segmentation.evaluation.inference.predict_batch`, from the normalised image to the
class of every pixel. Calls alternate, so that other load hits both. Prints seconds (the best of the repeats), the
ratio, and the share of pixels on which both agree. --bf16 adds our time under bfloat16 autocast.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

import segmentation.model.backbone  # noqa: F401  (registers the ViT)
from backbones.config import FAMILY
from backbones.weights.normalisation import Normalisation
from segmentation.config import HeadConfig, SegmentationConfig, SlideConfig
from segmentation.evaluation.inference import predict_images
from segmentation.host import build_model
from segmentation.model.upernet import upernet
from segmentation.recipes import tiny

HEIGHT, WIDTH, CLASSES, CROP = 512, 683, 150, 512


def config_of(name: str) -> SegmentationConfig:
    """Return UPerNet on the named ViT as mmseg's configs/mae has it: as wide as the ViT, four maps evenly spaced."""
    vit = FAMILY[name].at(CROP, CROP)
    first, second, third, last = (vit.depth * level // 4 - 1 for level in range(1, 5))
    head = HeadConfig(channels=vit.embed_dim)
    return replace(
        tiny(), backbone=vit, out_indices=(first, second, third, last), head=head, slide=SlideConfig(stride=341)
    )


def seconds(run: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Return the time of a call and what it gave."""
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="vit_base_patch16", choices=sorted(FAMILY))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bf16", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    config = config_of(args.architecture)
    segmentor = build_model(upernet(config, num_classes=CLASSES, normalisation=Normalisation())).eval()
    width = -(-WIDTH // config.backbone.patch_size) * config.backbone.patch_size
    image = torch.randn(1, 3, HEIGHT, width)
    metas = [{"img_shape": (HEIGHT, width), "ori_shape": (HEIGHT, width), "pad_shape": (HEIGHT, width)}]

    def theirs() -> Tensor:
        logits = segmentor.inference(image, [dict(metas[0])])
        return segmentor.postprocess_result(logits)[0].pred_sem_seg.data[0]

    def ours() -> Tensor:
        return predict_images(segmentor, image, (HEIGHT, width))[0]

    def ours_bf16() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return ours()

    runs = {"mmseg": theirs, "ours": ours} | ({"ours, bfloat16": ours_bf16} if args.bf16 else {})
    times: dict[str, list[float]] = {name: [] for name in runs}
    predictions = {}
    with torch.no_grad():
        for _ in range(args.repeats):
            for name, run in runs.items():
                spent, predictions[name] = seconds(run)
                times[name].append(spent)
    print(f"{args.architecture}, {torch.get_num_threads()} threads, {HEIGHT} x {width}, {CLASSES} classes")
    for name, spent in times.items():
        same = (predictions[name] == predictions["mmseg"]).float().mean()
        print(f"{name:16} {min(spent):7.2f} s  {min(times['mmseg']) / min(spent):5.2f}x  same pixels {same:.4%}")


if __name__ == "__main__":
    main()
