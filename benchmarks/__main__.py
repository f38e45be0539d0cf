"""`make bench`: the benchmarks that take minutes, one after another, each in a process of its own.

    python -m benchmarks [NAME ...] [--models artifacts/bench]

Makes the model they run on first. One that fails does not keep the others from running.
"""

import argparse
import subprocess
import sys
from pathlib import Path

# Those that need peers' packages or the full shape are run by name: see README.md.
NAMES = ("engine_loop", "http_cost", "one_by_one", "images", "http_streams")
_ON_THE_EMBEDDED_MODEL = {"http_streams"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--models", type=Path, default=Path("artifacts/bench"))
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no benchmark called {', '.join(sorted(unknown))}")
    models = ("--models", str(options.models))
    if not _run("model", *models):
        sys.exit(1)
    failed = [
        name
        for name in options.names or NAMES
        if not _run(name, *(() if name in _ON_THE_EMBEDDED_MODEL else models))
    ]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _run(name: str, *arguments: str) -> bool:
    print(f"== {name}", flush=True)
    return subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments]).returncode == 0


if __name__ == "__main__":
    main()
