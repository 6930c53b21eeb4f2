"""``medserl pipeline``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from medserl.errors import EXIT_OK

DESCRIPTION = """Prepare notes, warm-start a model, train it by self-play, evaluate it against the model that self-play
started from, and report. The same command goes on with the stage that is not done."""
EPILOG = """Behind the options: overrides of a stage's configuration, train:key=value (evaluation uses them too) or
sft:key=value."""


def add_pipeline(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl pipeline``."""
    parser = commands.add_parser(
        "pipeline", help="from files of notes to a judged checkpoint", description=DESCRIPTION, epilog=EPILOG
    )
    parser.set_defaults(run=run_pipeline)
    parser.add_argument(
        "items", nargs="*", metavar="SOURCE", help="files of notes as `data prepare` takes them (default: the ward)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pipeline's directory")
    parser.add_argument(
        "--config", metavar="NAME", help="of training (default: embedded; real_cpu for another --model)"
    )
    parser.add_argument("--sft-config", metavar="NAME", help="of the warm start (default: goes with that one)")
    parser.add_argument("--skip-warm-start", action="store_true", help="train the start model as it is")
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="start model (default: the training configuration's; for the ward's warm start, its configuration's)",
    )
    parser.add_argument("--count", type=int, default=384, metavar="N", help="ward: notes in each split (384)")
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="ward: seed of the notes (7)")
    parser.add_argument("--split", action="append", default=[], metavar="SPLIT=FILE", help="a source and its split")
    parser.add_argument("--ratios", default="0.8,0.1,0.1", metavar="T,V,T", help="shares where nothing tells the split")
    leaks = parser.add_mutually_exclusive_group()
    leaks.add_argument("--allow-leaks", action="store_true", help="keep notes that are in two splits")
    leaks.add_argument("--drop-leaks", action="store_true", help="drop them from train (from validation, if in test)")
    parser.add_argument(
        "--max-prompt-tokens",
        type=int,
        metavar="N",
        help="leave out, and count, notes of which a prompt needs more (default: such a note is an error)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the stages and check all inputs, start nothing")


def run_pipeline(options: argparse.Namespace, overrides: list[str]) -> int:
    """Check, then run the stages that are not done."""
    from medserl.config.load import DEFAULT_CONFIG, REAL_CONFIG
    from medserl.config.model_at_hand import default_config, named_model
    from medserl.pipeline.plan import PAGE, Request, split_items
    from medserl.pipeline.run import Pipeline, StageFailed
    from medserl.report.terminal import show

    sources, train, sft = split_items([*options.items, *overrides])
    config = options.config or default_config(options.model or named_model(train), DEFAULT_CONFIG, REAL_CONFIG)
    request = Request(
        out=options.out,
        sources=tuple(sources),
        config=config,
        sft_config=options.sft_config,
        train=tuple(train),
        sft=tuple(sft),
        model=options.model,
        skip_warm_start=options.skip_warm_start,
        count=options.count,
        seed=options.seed,
        given_splits=tuple(options.split),
        ratios=options.ratios,
        leaks="allow" if options.allow_leaks else "drop" if options.drop_leaks else "error",
        max_prompt_tokens=options.max_prompt_tokens,
    )
    logging.basicConfig(level=logging.INFO, format="medserl pipeline: %(message)s", stream=sys.stderr)
    pipeline = Pipeline(request)
    show(pipeline.plan())
    if options.dry_run:
        pipeline.dry_run()
        print("dry run: everything checked, nothing started")
        return EXIT_OK
    try:
        pipeline.run()
    except StageFailed as error:
        code = int(error.args[0])
        print(f"medserl: a stage ended with code {code}; the same command goes on with it", file=sys.stderr)
        return code
    print(f"report in {pipeline.folders.out / PAGE}")
    return EXIT_OK
