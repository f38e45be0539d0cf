"""Owns the image graph, vision tower and resampler in one; knows nothing of slices or text.

`pixel_values` f32 [n, 3, height, width] -> `image_embeddings` f32 [n, query_num, hidden], for any n, height
and width. Pixels come normalised; sizes that are no multiple of the patch are padded at the bottom and right
with 0 inside the graph.
"""

from collections.abc import Iterator

import openvino as ov
import torch
from torch import nn

from convert.checkpoint import Checkpoint
from convert.checkpoint_config import CheckpointConfig, VisionConfig
from convert.resampler import Resampler
from convert.tracing import load, on_meta_device, trace
from convert.upstream import VisionTransformer
from convert.weight_cast import WeightCast, to_f32


def vision_tower(vision: VisionConfig) -> nn.Module:
    """timm's vision transformer as SigLIP uses it: no class token, no pooling head, dynamic image size."""
    tower: nn.Module = VisionTransformer(
        img_size=vision.image_size,
        patch_size=vision.patch_size,
        embed_dim=vision.hidden_size,
        depth=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        # timm truncates embed_dim * mlp_ratio; the half keeps a float error from costing a column.
        mlp_ratio=(vision.intermediate_size + 0.5) / vision.hidden_size,
        class_token=False,
        global_pool="",
        num_classes=0,
        dynamic_img_size=True,
        dynamic_img_pad=True,
        weight_init="skip",
    )
    return tower


class ImageEncoder(nn.Module):
    """Pixels to image embeddings."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.patch_size = config.vision.patch_size
        self.vpm = vision_tower(config.vision)
        self.resampler = Resampler(config)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """f32 [n, 3, height, width] -> f32 [n, query_num, hidden]."""
        # ceil, by integers: the tower pads what is no multiple
        rows, columns = ((side + self.patch_size - 1) // self.patch_size for side in pixel_values.shape[2:])
        result: torch.Tensor = self.resampler(self.vpm.forward_features(pixel_values), rows, columns)  # type: ignore[operator]
        return result


def build(checkpoint: Checkpoint, cast: WeightCast) -> ImageEncoder:
    """The module; linear layers' matrices as `cast` makes them, the checkpoint's other weights f32."""
    with on_meta_device():
        model = ImageEncoder(checkpoint.config)
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    tensors = {
        name: cast(name, tensor) if name in linear else to_f32(name, tensor)
        for name, tensor in _own_names(checkpoint)
    }
    load(model, tensors)
    return model.eval()


def to_openvino(model: ImageEncoder) -> ov.Model:
    """The graph; shares memory with `model`, which must outlive it."""
    # No side a multiple of the patch, no square, no batch of one: nothing may be folded into a constant.
    example = torch.zeros(2, 3, 3 * model.patch_size + 1, 4 * model.patch_size + 1)
    graph = trace(model, (example,))
    graph.inputs[0].get_tensor().set_names({"pixel_values"})
    graph.inputs[0].node.set_friendly_name("pixel_values")
    graph.inputs[0].node.set_partial_shape(ov.PartialShape([-1, 3, -1, -1]))
    graph.outputs[0].get_tensor().set_names({"image_embeddings"})
    graph.validate_nodes_and_infer_types()
    return graph


def _own_names(checkpoint: Checkpoint) -> Iterator[tuple[str, torch.Tensor]]:
    """The checkpoint's tensors under this module's names, torch's fused attention input split into three."""
    for name, tensor in checkpoint.tensors("vpm."):
        yield f"vpm.{name}", tensor
    for name, tensor in checkpoint.tensors("resampler."):
        if name.startswith("attn.in_proj_"):
            kind = name.removeprefix("attn.in_proj_")
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                yield f"resampler.{letter}_proj.{kind}", third.contiguous()
        elif name == "proj":
            yield "resampler.proj.weight", tensor.T.contiguous()
        else:
            yield f"resampler.{name.removeprefix('attn.')}", tensor
