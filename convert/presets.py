"""Owns the sizes of the synthetic checkpoints; writes nothing."""

import math
from typing import Any, Literal

from convert.checkpoint_config import parse_config
from convert.tensor_table import expected_shapes

Preset = Literal["tiny", "ten-layer", "quarter", "full"]

_COMMON: dict[str, Any] = {
    "architectures": ["MiniCPMV"],
    "attention_bias": False,
    "bos_token_id": 1,
    "drop_vision_last_layer": True,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "image_size": 448,
    "initializer_range": 0.1,
    "max_position_embeddings": 4096,
    "max_slice_nums": 9,
    "model_type": "minicpmv",
    "patch_size": 14,
    "query_num": 64,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "scale_depth": 1.4,
    "scale_emb": 12,
    "scale_resolution": 448,
    "slice_mode": True,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vision_encoder": "vit_so400m_patch14_siglip_384.webli",
}
_FULL = {
    "dim_model_base": 256,
    "hidden_size": 2304,
    "intermediate_size": 5760,
    "num_attention_heads": 36,
    "num_hidden_layers": 40,
    "num_key_value_heads": 36,
    "vocab_size": 122753,
}
_SIZES: dict[Preset, dict[str, Any]] = {
    # hidden / dim_model_base is no integer and the patch grid is the published one: traps stay alive.
    "tiny": {
        "dim_model_base": 48,
        "hidden_size": 256,
        "intermediate_size": 448,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 4,
        "vocab_size": 1024,
        "vision_config": {
            "hidden_size": 144,
            "image_size": 384,
            "intermediate_size": 302,
            "num_attention_heads": 2,
            "num_hidden_layers": 2,
            "patch_size": 14,
        },
    },
    "ten-layer": {**_FULL, "num_hidden_layers": 10},
    # Published widths, a quarter of both depths: images and prompts keep their shares, for benchmarks.
    "quarter": {
        **_FULL,
        "num_hidden_layers": 10,
        "vision_config": {
            "hidden_size": 1152,
            "image_size": 384,
            "intermediate_size": 4304,
            "num_attention_heads": 16,
            "num_hidden_layers": 7,  # of 26
            "patch_size": 14,
        },
    },
    "full": _FULL,
}


def preset_config(preset: Preset) -> dict[str, Any]:
    """config.json of a preset."""
    return dict(
        sorted({**_COMMON, **_SIZES[preset], "_name_or_path": f"synthetic-MiniCPM-V-2-{preset}"}.items())
    )


def num_weights(preset: Preset) -> int:
    """How many weights the preset's checkpoint holds."""
    return sum(math.prod(shape) for shape in expected_shapes(parse_config(preset_config(preset))).values())
