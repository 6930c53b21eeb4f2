"""``medserl sft``."""

from __future__ import annotations

import argparse
import sys

from medserl.cli.arguments import chosen_config
from medserl.errors import EXIT_FAILURE, EXIT_OK


def sft(options: argparse.Namespace, overrides: list[str]) -> int:
    """Check, then fine-tune to the end; the same command on the same run directory goes on."""
    from medserl.run.trackers import where_numbers_go
    from medserl.sft.train import SftFailed, SftRun

    run = SftRun(chosen_config(options, overrides), overrides)
    notes = run.settings.notes
    if numbers := where_numbers_go(run.settings.trackers):
        print(f"numbers to {numbers}: metrics and settings that are numbers, no text")
    print(f"model      {run.config.model.path}")
    print(f"notes      {notes.path or f'{notes.count} synthetic notes'}")
    print(f"steps      {run.settings.steps} of {run.config.data.train_batch_size} demonstrations")
    print(f"run        {run.run_dir.path}", flush=True)
    if options.dry_run:
        run.check_checkpoints(content=True)
        print("dry run: everything checked, nothing started")
        return EXIT_OK
    try:
        run.run()
    except SftFailed as error:
        print(f"medserl: {error}", file=sys.stderr)
        return EXIT_FAILURE
    return EXIT_OK
