"""``medserl pipeline``."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from medserl.cli.arguments import add_splitting
from medserl.errors import EXIT_OK

DESCRIPTION = """Prepare notes, warm-start a model, train it by self-play, evaluate it against the model that self-play
started from, and report. The same command resumes at the first stage that is not done."""
EPILOG = """Overrides of a stage's configuration may follow the options: train:key=value (evaluation uses it too) or
sft:key=value."""


def add_pipeline(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl pipeline``."""
    parser = commands.add_parser(
        "pipeline", help="go from files of notes to a judged checkpoint", description=DESCRIPTION, epilog=EPILOG
    )
    parser.set_defaults(run=run_pipeline)
    parser.add_argument(
        "items", nargs="*", metavar="SOURCE", help="a file of notes, as `data prepare` takes it (default: the ward)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the pipeline's directory")
    parser.add_argument(
        "--config", metavar="NAME", help="training's configuration (default: embedded, or real_cpu for another --model)"
    )
    parser.add_argument(
        "--sft-config",
        metavar="NAME",
        help="the warm start's configuration (default: the one that goes with training's)",
    )
    parser.add_argument("--skip-warm-start", action="store_true", help="train the start model as it is")
    parser.add_argument(
        "--model",
        metavar="PATH",
        help="the start model (default: that of training's configuration, or for the ward's warm start of its own)",
    )
    parser.add_argument(
        "--count", type=int, default=384, metavar="N", help="ward only: notes in each split (default: 384)"
    )
    parser.add_argument("--seed", type=int, default=7, metavar="S", help="ward only: seed of the notes (default: 7)")
    add_splitting(parser)
    leaks = parser.add_mutually_exclusive_group()
    leaks.add_argument("--allow-leaks", action="store_true", help="keep notes that are in two splits")
    leaks.add_argument("--drop-leaks", action="store_true", help="drop them from train (from validation, if in test)")
    parser.add_argument(
        "--max-prompt-tokens",
        type=int,
        metavar="N",
        help="leave out, and count, notes whose prompts need more tokens (default: such a note is an error)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the stages and check all inputs, but start nothing"
    )


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
        print(f"medserl: a stage ended with code {code}; the same command continues with that stage", file=sys.stderr)
        return code
    print(f"report in {pipeline.folders.out / PAGE}")
    return EXIT_OK
