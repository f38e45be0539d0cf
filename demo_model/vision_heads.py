"""Owns the throw-away heads that teach the eye: classes of every patch and every query, and their loss."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo_model.palette import CHARACTERS, COLOURS, PLACES, SHAPES
from demo_model.vision_labels import IGNORED, NOTHING, SLOTS

_NOTHING_WEIGHT = 0.15  # most patches show nothing
_PLACE_WEIGHT = 4.0
MAX_IMAGES = 3  # in one conversation


class VisionHeads(nn.Module):
    """Linear readings of patch features and image embeddings."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        classes = (SLOTS * (len(CHARACTERS) + 1), len(SHAPES) + 1, len(COLOURS) + 1)
        self.patch = nn.Linear(width, sum(classes) + 2)
        self.query = nn.Linear(hidden, sum(classes) + len(PLACES))
        self.middle = nn.Linear(hidden, len(PLACES))
        self.ordinal = nn.Linear(hidden, MAX_IMAGES)
        self.classes = classes

    def forward(
        self, features: Tensor, embeddings: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(loss, share of right answers by name; of things that are there, nothing not counted)."""
        rest_patch = self.patch(features).float().split([*self.classes, 2], dim=-1)
        rest_query = self.query(embeddings).float().split([*self.classes, len(PLACES)], dim=-1)
        losses: list[Tensor] = []
        right: dict[str, Tensor] = {}
        for name, outputs in (("patch", rest_patch), ("query", rest_query)):
            for kind, logits in zip(("characters", "shapes", "colours"), outputs, strict=False):
                target = labels[f"{name}_{kind}"].flatten()
                flat = logits.reshape(len(target), -1)
                weight = torch.ones(flat.shape[1])
                weight[NOTHING] = _NOTHING_WEIGHT
                losses.append(F.cross_entropy(flat, target, weight, ignore_index=IGNORED))
                there = target > 0
                right[f"{name} {kind}"] = (flat.argmax(1) == target)[there].float().mean()
        known = labels["patch_places"] != IGNORED
        losses.append(_PLACE_WEIGHT * F.mse_loss(rest_patch[3][known], labels["patch_places"][known]))
        target = labels["query_places"].flatten()
        places = rest_query[3].flatten(0, 1)
        losses.append(0.5 * F.cross_entropy(places, target, ignore_index=IGNORED))
        right["query places"] = (places.argmax(1) == target)[target >= 0].float().mean()
        return torch.stack(losses).sum(), right

    def place_loss(
        self, middle: Tensor, images: Tensor, labels: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the language model's middle knows of its slots, [slices, queries, hidden]: where in the whole
        image each lies, and in which image, i64 [slices]. Without it, this is learned much later."""
        target = labels["query_image_places"].flatten()
        logits = self.middle(middle).float().flatten(0, 1)
        right = (logits.argmax(1) == target)[target >= 0].float().mean()
        ordinals = self.ordinal(middle).float().flatten(0, 1)
        image = images[:, None].expand(middle.shape[:2]).flatten()
        loss = F.cross_entropy(logits, target, ignore_index=IGNORED) + F.cross_entropy(ordinals, image)
        right_image = (ordinals.argmax(1) == image)[image > 0].float().mean()
        return loss, {"slot places": right, "slot images": right_image}
