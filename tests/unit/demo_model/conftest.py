"""A demo checkpoint that was never trained, and a sampler with its tokenizer."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from convert.checkpoint import Checkpoint
from convert.checkpoint_config import parse_config
from demo_model.checkpoint import save_checkpoint
from demo_model.network import Network, initialise
from demo_model.settings import read_settings
from demo_model.vision_labels import SliceLabels


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Network, Checkpoint]:
    """A network with bf16-rounded random weights, and the same as a checkpoint."""
    settings = read_settings()
    network = Network(parse_config(settings.checkpoint))
    initialise(network, 3, settings.query_span)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
            parameter.copy_(parameter.to(torch.bfloat16))
    run: Path = tmp_path_factory.mktemp("run")
    torch.save({"network": network.state_dict(), "settings": asdict(settings)}, run / "state.pt")
    save_checkpoint(settings, run, run / "checkpoint")
    return network, Checkpoint(run / "checkpoint")


@pytest.fixture(scope="session")
def no_labels() -> SliceLabels:
    """Labels of a slice nothing is known about."""
    one, two = np.zeros(1, dtype=np.int64), np.zeros((1, 2), dtype=np.int64)
    return SliceLabels(two, one, one, np.zeros((1, 2), dtype=np.float32), two, one, one, one, one)
