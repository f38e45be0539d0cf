"""`python -m demo_model train | save | evaluate | faults`: the embedded model, from images to its table."""

import argparse
import json
import tempfile
from pathlib import Path

from demo_model.settings import CHECKPOINT, RUN, read_settings

_EXAM_CASES = 300


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m demo_model", description=__doc__)
    commands = parser.add_subparsers(required=True, title="commands")
    train = commands.add_parser("train", help="learn by config.json, or go on where the last run stopped")
    train.add_argument("--run", type=Path, default=RUN, help="directory of the training state")
    train.add_argument(
        "--start", type=Path, help="a checkpoint whose weights to go on from, with the last stage"
    )
    train.set_defaults(command=_train)
    save = commands.add_parser("save", help="write the training state as a checkpoint")
    save.add_argument("--run", type=Path, default=RUN, help="directory of the training state")
    save.add_argument("--output", type=Path, default=CHECKPOINT, help="directory to write")
    save.set_defaults(command=_save)
    evaluate = commands.add_parser("evaluate", help="ask a service about images it has never seen")
    evaluate.add_argument("--artifacts", type=Path, required=True, help="what convert export wrote")
    evaluate.add_argument("--weights", nargs="+", default=["int8"], help="variants, a column each")
    evaluate.add_argument("--cases", type=int, default=_EXAM_CASES, help="of every row")
    evaluate.add_argument("--seed", type=int, required=True, help="one not used for any decision")
    evaluate.add_argument("--harder", action="store_true", help="what it was not trained for, instead")
    evaluate.add_argument("--mistakes", type=Path, help="file for what went wrong, one JSON line each")
    evaluate.set_defaults(command=_evaluate)
    faults = commands.add_parser("faults", help="break the programs on purpose: does the exam notice?")
    faults.add_argument("--cases", type=int, default=60, help="of every row")
    faults.add_argument("--seed", type=int, default=1)
    faults.set_defaults(command=_faults)
    arguments = parser.parse_args()
    arguments.command(arguments)


def _train(arguments: argparse.Namespace) -> None:
    from demo_model.train import Trainer

    Trainer(read_settings(), arguments.run, arguments.start).run()


def _save(arguments: argparse.Namespace) -> None:
    from demo_model.checkpoint import save_checkpoint

    save_checkpoint(read_settings(), arguments.run, arguments.output)


def _evaluate(arguments: argparse.Namespace) -> None:
    from demo_model.evaluate import Mark, examine, running_service, table
    from demo_model.rows import HARDER_ROWS, ROWS
    from service.artifacts import read_manifest

    asked = HARDER_ROWS if arguments.harder else ROWS
    image_config = read_manifest(arguments.artifacts).model.image
    marks: dict[str, list[Mark]] = {}
    for weights in arguments.weights:
        with running_service(arguments.artifacts, weights) as url:
            marks[weights] = []
            for mark in examine(url, arguments.cases, arguments.seed, image_config, asked):
                print(f"{weights} {mark.row.name}: {mark.accuracy:.3f}", flush=True)
                marks[weights].append(mark)
    print(table(marks))
    if arguments.mistakes:
        with arguments.mistakes.open("w", encoding="utf-8") as file:
            for weights, rows in marks.items():
                for mark in rows:
                    for case, answer in mark.mistakes:
                        line = {"weights": weights, "row": case.row, "question": case.question}
                        line |= {"expected": case.answer, "answered": answer}
                        file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _faults(arguments: argparse.Namespace) -> None:
    from demo_model.evaluate import Mark, table
    from demo_model.faults import examine_faults

    marks: dict[str, list[Mark]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for fault, row in examine_faults(CHECKPOINT, Path(directory), arguments.cases, arguments.seed):
            marks[fault] = row
            print(f"examined: {fault}", flush=True)
    print(table(marks))


if __name__ == "__main__":
    main()
