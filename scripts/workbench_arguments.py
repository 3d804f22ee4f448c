"""The arguments that the scripts on levels share: a model, its rows and a store, opened as a workbench."""

import argparse
from pathlib import Path

from pruning.workbench import Workbench


def workbench_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser of what a workbench is opened with.

    Args:
        description: the docstring of the script, which ``--help`` prints.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the model")
    parser.add_argument("--train", type=Path, required=True, help="rows that it is scored on")
    parser.add_argument("--eval", type=Path, required=True, help="rows that judge its cuts")
    parser.add_argument("--store", type=Path, required=True, help="folder that keeps scores and variants")
    return parser


def open_workbench(description: str | None) -> Workbench:
    """Return the calibrated workbench that the command line names; ``description`` as for ``workbench_parser``."""
    return calibrated_workbench(workbench_parser(description).parse_args())


def calibrated_workbench(options: argparse.Namespace) -> Workbench:
    """Return the workbench that parsed arguments name."""
    bench = Workbench.open(options.model, options.train, options.eval, options.store)
    bench.calibrate()
    return bench
