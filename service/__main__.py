"""`python -m service`: reads settings, checks the artifacts, serves. Exit code 2: settings, 1: all else."""

import sys
from collections.abc import Sequence

from service.artifacts import check_files, read_manifest
from service.errors import ServiceError, StartupError
from service.settings import Settings, read_settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal; every failure to start is one line on stderr."""
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    except StartupError as error:
        return _say(error, 2)
    try:
        _serve(settings)
    except ServiceError as error:
        return _say(error, 1)
    return 0


def _serve(settings: Settings) -> None:
    manifest = read_manifest(settings.model_dir)
    check_files(settings.model_dir, manifest, settings.weights)
    # Imported late: --help and a wrong setting need not wait for OpenVINO.
    from service.app import run
    from service.server import configure_logging

    configure_logging(settings.log_level)
    run(settings, manifest)


def _say(error: ServiceError, code: int) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
