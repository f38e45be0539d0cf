"""Owns importing the model classes of transformers and timm, whatever torchvision thinks of this torch.

Both import torchvision, whose compiled ops are missing beside a CPU-only torch; the schemas of the two ops it
looks up at import are enough, as none of our models calls them.
"""

import torch

_OPS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

_library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]  # the schemas live as long as this object


def _declare_missing_ops() -> None:
    for name, schema in _OPS.items():
        if not hasattr(torch.ops.torchvision, name):
            _library.define(schema)  # type: ignore[no-untyped-call]


_declare_missing_ops()

from timm.models.vision_transformer import VisionTransformer  # noqa: E402
from transformers import Cache, GraniteConfig, GraniteForCausalLM  # noqa: E402

__all__ = ["Cache", "GraniteConfig", "GraniteForCausalLM", "VisionTransformer"]
