"""Owns the command line: `python -m convert export | verify | synthesize`; does none of the work itself."""

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import get_args

from rich.console import Console

from convert.errors import ConvertError
from service.artifacts import WEIGHT_FORMATS
from service.errors import ServiceError

_EXIT_FAILED = 1
_EXIT_REFUSED = 2  # argparse's own, too
_EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0, 2 for what an operator can mend, 1 for what nobody expected, 130."""
    parsed = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(stderr=True)
    try:
        parsed.command(parsed, console)
    except (ConvertError, ServiceError) as error:
        console.print(f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(_EXIT_REFUSED)
    except KeyboardInterrupt:
        console.print("interrupted: nothing was kept", style="bold red")
        sys.exit(_EXIT_INTERRUPTED)
    except Exception:
        console.print_exception()
        sys.exit(_EXIT_FAILED)


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert", description="MiniCPM-V-2 checkpoint to OpenVINO."
    )
    commands = parser.add_subparsers(title="commands", required=True)
    _add_export(commands.add_parser("export", help="write graphs, tokenizer and manifest.json"))
    _add_verify(commands.add_parser("verify", help="compare exported graphs with torch"))
    _add_synthesize(commands.add_parser("synthesize", help="write a random checkpoint, to size a machine"))
    return parser


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_export)
    parser.add_argument(
        "--checkpoint", required=True, help="directory, or hub id such as openbmb/MiniCPM-V-2"
    )
    parser.add_argument("--revision", help="commit, tag or branch of the hub id")
    parser.add_argument("--output", required=True, type=Path, help="directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--model-id", help="name clients use (default: the hub id, or the directory's name)")
    parser.add_argument("--weights", nargs="+", choices=WEIGHT_FORMATS, default=list(WEIGHT_FORMATS))
    group = parser.add_argument_group("int4")
    group.add_argument("--int4-mode", choices=("int4_sym", "int4_asym"), default="int4_sym")
    group.add_argument("--int4-group-size", type=int, default=64, help="channels per scale; -1: a whole row")
    group.add_argument("--int4-ratio", type=float, default=0.6, help="share of weights in 4 bits, rest in 8")
    group.add_argument(
        "--gptq",
        action="store_true",
        help="round so that built-in conversations change least: half the loss, a minute a layer on 2 cores",
    )
    group.add_argument(
        "--awq", action="store_true", help="activation-aware scaling (runs the conversations too)"
    )
    group.add_argument("--scale-estimation", action="store_true", help="fit scales to activations (likewise)")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_verify)
    parser.add_argument("directory", type=Path, help="what export wrote")
    parser.add_argument("--checkpoint", required=True, help="what it was exported from")
    parser.add_argument("--revision", help="commit, tag or branch of the hub id")


def _add_synthesize(parser: argparse.ArgumentParser) -> None:
    from convert.presets import Preset

    parser.set_defaults(command=_synthesize)
    parser.add_argument("--output", required=True, type=Path, help="directory to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument("--preset", choices=get_args(Preset), default="tiny")
    parser.add_argument("--seed", type=int, default=0)


# The commands import what they need: torch alone takes seconds, which `--help` should not.


def _export(parsed: argparse.Namespace, console: Console) -> None:
    from convert.compress import CompressionOptions
    from convert.download import find_checkpoint
    from convert.pipeline import ExportOptions, export
    from convert.progress import Steps
    from convert.tables import bit_width_texts, export_table

    found = find_checkpoint(parsed.checkpoint, parsed.revision)
    options = ExportOptions(
        model_id=parsed.model_id or found.source_id,
        source_id=found.source_id,
        revision=found.revision,
        weights=tuple(parsed.weights),
        compression=CompressionOptions(
            int4_mode=parsed.int4_mode,
            int4_group_size=parsed.int4_group_size,
            int4_ratio=parsed.int4_ratio,
            gptq=parsed.gptq,
            awq=parsed.awq,
            scale_estimation=parsed.scale_estimation,
        ),
        overwrite=parsed.overwrite,
    )
    manifest = export(found.directory, parsed.output, options, Steps(console))
    for text in bit_width_texts(manifest):
        print(text)
    Console().print(export_table(manifest))


def _verify(parsed: argparse.Namespace, console: Console) -> None:
    from convert.download import find_checkpoint
    from convert.progress import Steps
    from convert.tables import verification_table
    from convert.verify import verify

    found = find_checkpoint(parsed.checkpoint, parsed.revision)
    Console().print(verification_table(verify(parsed.directory, found.directory, Steps(console))))


def _synthesize(parsed: argparse.Namespace, console: Console) -> None:
    from convert.presets import num_weights
    from convert.progress import Steps
    from convert.synthesize import synthesize

    total_bytes = 2 * num_weights(parsed.preset)
    with Steps(console).counted(f"a random {parsed.preset} checkpoint", total_bytes) as on_bytes:
        synthesize(
            parsed.output,
            parsed.preset,
            parsed.seed,
            overwrite=parsed.overwrite,
            on_bytes=on_bytes,
        )


if __name__ == "__main__":
    main()
