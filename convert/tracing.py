"""Owns turning a torch module into an OpenVINO graph with 16-bit weights; knows no model's structure."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import openvino as ov
import torch
from openvino.frontend.pytorch import patch_model
from torch import nn
from torch.jit._trace import TracerWarning


def trace(module: nn.Module, example: tuple[torch.Tensor, ...]) -> ov.Model:
    """Trace `module` on `example`; every size in the graph that follows an input stays dynamic.

    16-bit weights of linear and embedding layers become 16-bit constants, each followed by a Convert to
    f32, without a copy: the graph shares the module's memory, so the module must outlive the graph.
    """
    module.eval()
    if any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in module.parameters()):
        # The name is OpenVINO's own private hook, the one optimum-intel uses.
        getattr(patch_model, "__make_16bit_traceable")(module)
    with torch.no_grad(), _quiet_tracer():
        return ov.convert_model(module, example_input=example)


def load(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put `tensors` (by parameter name, all of them) into a module built on the meta device."""
    module.load_state_dict(dict(tensors), strict=True, assign=True)
    module.requires_grad_(False)


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Modules built inside own no memory until load()."""
    with torch.device("meta"):
        yield


@contextmanager
def _quiet_tracer() -> Iterator[None]:
    with warnings.catch_warnings():
        # TracerWarning: Python-level shape checks in timm and transformers hold for every shape, which the
        # parity tests show. The others: torch and transformers deprecate what OpenVINO's tracer looks at.
        for category in (TracerWarning, DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield
