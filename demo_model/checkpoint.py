"""Owns writing what was learned as a checkpoint in the published layout, which convert reads like any other.

`python -m demo_model save`
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from convert.checkpoint import CONFIG_NAME, SINGLE_NAME, TOKENIZER_NAME
from convert.checkpoint_config import parse_config
from convert.output import fresh_directory
from convert.synthesize import tokenizer_config
from demo_model.settings import Settings
from demo_model.vocabulary import demo_vocabulary


def save_checkpoint(settings: Settings, run: Path, output: Path) -> None:
    """Write config.json, the tokenizer and bf16 safetensors from a run's state; replaces `output`."""
    state = torch.load(run / "state.pt", weights_only=True)
    tensors = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state["network"].items()}
    needed = sum(tensor.nbytes for tensor in tensors.values())
    with fresh_directory(output, overwrite=True, needed_bytes=needed) as directory:
        save_file(tensors, directory / SINGLE_NAME, {"format": "pt"})
        (directory / TOKENIZER_NAME).write_bytes(
            demo_vocabulary(parse_config(settings.checkpoint).vocab_size)
        )
        _write_json(directory / CONFIG_NAME, settings.checkpoint)
        _write_json(directory / "tokenizer_config.json", tokenizer_config())


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
