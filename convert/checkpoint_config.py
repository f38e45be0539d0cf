"""Owns the sizes config.json states, and which of them no MiniCPM-V-2 can have; reads no file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from convert.errors import CheckpointError
from service.artifacts import ImageConfig, ModelConfig, TokenIds

RESAMPLER_HEAD_DIM = 128  # upstream resampler: num_heads = hidden_size // 128
_TIMM_MODEL = "vit_so400m_patch14_siglip_384.webli"


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """Sizes of the vision tower."""

    hidden_size: int
    num_attention_heads: int
    num_hidden_layers: int  # blocks in the file: a dropped last one is not counted
    intermediate_size: int
    patch_size: int
    image_size: int  # pixels; image_size // patch_size is the side of the position table

    @property
    def table_side(self) -> int:
        """Side of the stored position table, in patches."""
        return self.image_size // self.patch_size


# timm's vit_so400m_patch14_siglip_384.webli has 27 blocks; MiniCPM-V-2 was saved without the last.
_PUBLISHED_VISION = VisionConfig(
    hidden_size=1152,
    num_attention_heads=16,
    num_hidden_layers=26,
    intermediate_size=4304,
    patch_size=14,
    image_size=384,
)


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """What config.json says, as far as the graphs depend on it."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    intermediate_size: int
    vocab_size: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float
    scale_emb: float
    scale_depth: float
    dim_model_base: int
    query_num: int
    scale_resolution: int
    max_slice_nums: int
    vision: VisionConfig

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the language model."""
        return self.hidden_size // self.num_attention_heads

    @property
    def residual_multiplier(self) -> float:
        """MiniCPM's depth scaling of every residual branch: scale_depth / sqrt(layers)."""
        return self.scale_depth / math.sqrt(self.num_hidden_layers)

    @property
    def logits_scaling(self) -> float:
        """MiniCPM divides the logits by hidden_size / dim_model_base."""
        return self.hidden_size / self.dim_model_base

    @property
    def resampler_heads(self) -> int:
        """Heads of the resampler's attention."""
        return self.hidden_size // RESAMPLER_HEAD_DIM

    def model_config(self) -> ModelConfig:
        """The part of it the service must know."""
        return ModelConfig(
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            vocab_size=self.vocab_size,
            max_position_embeddings=self.max_position_embeddings,
            token_ids=TokenIds(),
            image=ImageConfig(
                scale_resolution=self.scale_resolution,
                patch_size=self.vision.patch_size,
                max_slice_nums=self.max_slice_nums,
                query_num=self.query_num,
            ),
        )


def parse_config(raw: Mapping[str, Any]) -> CheckpointConfig:
    """Read config.json's object; raises CheckpointError for a key that is missing, wrong or unsupported."""
    _check_supported(raw)
    config = CheckpointConfig(
        hidden_size=_integer(raw, "hidden_size"),
        num_hidden_layers=_integer(raw, "num_hidden_layers"),
        num_attention_heads=_integer(raw, "num_attention_heads"),
        num_key_value_heads=_integer(raw, "num_key_value_heads", _integer(raw, "num_attention_heads")),
        intermediate_size=_integer(raw, "intermediate_size"),
        vocab_size=_integer(raw, "vocab_size"),
        max_position_embeddings=_integer(raw, "max_position_embeddings", 4096),
        rms_norm_eps=_number(raw, "rms_norm_eps", 1e-5),
        rope_theta=_number(raw, "rope_theta", 10000.0),
        scale_emb=_number(raw, "scale_emb"),
        scale_depth=_number(raw, "scale_depth"),
        dim_model_base=_integer(raw, "dim_model_base"),
        query_num=_integer(raw, "query_num", 64),
        scale_resolution=_integer(raw, "scale_resolution", 448),
        max_slice_nums=_integer(raw, "max_slice_nums", 9),
        vision=_vision(raw),
    )
    _check_divisible(config)
    return config


def _vision(raw: Mapping[str, Any]) -> VisionConfig:
    sizes = raw.get("vision_config")
    if sizes is None:
        name = raw.get("vision_encoder")
        if name != _TIMM_MODEL:
            raise CheckpointError(
                f"config.json names the vision encoder {name!r}, but only {_TIMM_MODEL} is known: give its "
                "sizes as vision_config"
            )
        return _PUBLISHED_VISION
    if not isinstance(sizes, Mapping):
        raise CheckpointError("vision_config in config.json is no object: see docs for its six keys")
    return VisionConfig(
        hidden_size=_integer(sizes, "hidden_size"),
        num_attention_heads=_integer(sizes, "num_attention_heads"),
        num_hidden_layers=_integer(sizes, "num_hidden_layers"),
        intermediate_size=_integer(sizes, "intermediate_size"),
        patch_size=_integer(sizes, "patch_size", 14),
        image_size=_integer(sizes, "image_size", 384),
    )


def _check_supported(raw: Mapping[str, Any]) -> None:
    required = {
        "hidden_act": "silu",
        "rope_scaling": None,
        "attention_bias": False,
        "tie_word_embeddings": False,
        "slice_mode": True,
    }
    for key, value in required.items():
        if raw.get(key, value) != value:
            raise CheckpointError(
                f"config.json has {key} = {raw[key]!r}, MiniCPM-V-2 has {value!r}: this is another model"
            )


def _check_divisible(config: CheckpointConfig) -> None:
    rules = (
        ("hidden_size", config.hidden_size, "num_attention_heads", config.num_attention_heads),
        (
            "num_attention_heads",
            config.num_attention_heads,
            "num_key_value_heads",
            config.num_key_value_heads,
        ),
        ("hidden_size", config.hidden_size, "the resampler's head size", RESAMPLER_HEAD_DIM),
        (
            "vision_config.hidden_size",
            config.vision.hidden_size,
            "its num_attention_heads",
            config.vision.num_attention_heads,
        ),
    )
    for name, value, divisor_name, divisor in rules:
        if value % divisor:
            raise CheckpointError(
                f"config.json: {name} = {value} is no multiple of {divisor_name} = {divisor}: correct it"
            )


def _integer(raw: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(f"config.json: {key} must be a positive integer, it is {value!r}")
    return value


def _number(raw: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = raw.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"config.json: {key} must be a positive number, it is {value!r}")
    return float(value)
