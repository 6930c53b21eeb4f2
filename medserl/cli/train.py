"""``medserl train``."""

from __future__ import annotations

import argparse
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medserl.cli.arguments import chosen_config
from medserl.cli.train_plan import plan
from medserl.errors import EXIT_FAILURE, EXIT_OK, EXIT_OUT_OF_TIME, EXIT_USAGE, UserError
from medserl.run.stop_signals import StopSignals

if TYPE_CHECKING:
    from medserl.training.api import MedSeRLTrainer

EXIT_SIGNAL_BASE = 128


def train(options: argparse.Namespace, overrides: list[str]) -> int:
    """Check, then train to the end.

    Returns:
        0 when the run is complete; 75 when it stopped before its deadline and 128 + N when signal N stopped it, both
        with a checkpoint of every round that was played, and rounds to go; 1 when it failed, or an alarm ended it.
    """
    stop = StopSignals()
    if options.dry_run:
        return _train(options, overrides, stop)
    with stop.handled():  # from the first moment: a launcher may tell a run to stop while it imports
        return _train(options, overrides, stop)


def _train(options: argparse.Namespace, overrides: list[str], stop: StopSignals) -> int:
    from medserl.run.console import first_line

    config = chosen_config(options, overrides)
    first_line(config, sys.stderr)
    from medserl.training.api import MedSeRLTrainer

    if stop.received is not None:
        print(f"medserl: {stop.too_early}", file=sys.stderr, flush=True)
        return EXIT_SIGNAL_BASE + stop.received
    trainer = MedSeRLTrainer(config, overrides, verbose=options.verbose, stop=stop)
    print(plan(trainer), flush=True)
    if options.dry_run:
        trainer.run_dir.check_checkpoints(content=True)
        print("dry run: everything checked, nothing started")
        return EXIT_OK
    try:
        trainer.fit()
        code = _exit_code(trainer)
    except KeyboardInterrupt:
        trainer.interrupted()
        raise
    except UserError as error:
        if not trainer.started:
            raise
        logging.getLogger("medserl").error("%s", error)  # standard error is diverted by now
        return EXIT_USAGE
    except Exception as error:
        _explain(trainer, error)
        return EXIT_FAILURE
    finally:
        trainer.close()
    with _logged(trainer):
        _report(trainer.run_dir.path)
    return code


def _exit_code(trainer: MedSeRLTrainer) -> int:
    if trainer.stopped_by is not None:
        return EXIT_SIGNAL_BASE + trainer.stopped_by
    if trainer.alarmed:
        return EXIT_FAILURE
    return EXIT_OK if trainer.out_of_time is None else EXIT_OUT_OF_TIME


def _explain(trainer: MedSeRLTrainer, error: Exception) -> None:
    """Say what happened, what is lost and how to go on; the traceback goes to the log of what was printed."""
    from medserl.run.causes import innermost

    with _logged(trainer):
        log = logging.getLogger("medserl")
        if trainer.cause() is None:  # else it was said when it was found
            log.error("%s", innermost(error))
        log.error("everything that was printed is in %s; %s", trainer.run_dir.path / "logs", trainer.how_to_go_on())
        if trainer.started or trainer.verbose:  # a start that failed has written it there
            traceback.print_exc()


@contextmanager
def _logged(trainer: MedSeRLTrainer) -> Iterator[None]:
    """What is said inside is in the run's log, although a trainer that was closed has given that back."""
    from medserl.run.run_log import set_up_logging

    if trainer.started or not trainer.run_dir.path.is_dir():
        yield
        return
    undo = set_up_logging(trainer.run_dir.path)
    try:
        yield
    finally:
        undo()


def _report(run_dir: Path) -> None:
    """Say how the run went so far, when there is a round to report; that it cannot be said ends no run."""
    from medserl.report.run_report import PAGE, write_report
    from medserl.run.run_log import METRICS_FILE

    metrics = run_dir / METRICS_FILE
    if metrics.is_file() and metrics.stat().st_size:
        log = logging.getLogger("medserl.run")
        try:
            write_report(run_dir)
        except (UserError, OSError) as error:
            log.warning("no report: %s", error)
        else:
            log.info("report: %s", run_dir / PAGE)
