"""``medserl evaluate``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medserl.cli.arguments import add_decoding
from medserl.errors import EXIT_OK, Problems

if TYPE_CHECKING:
    from medserl.evaluation.run import Request

DEFAULT_OUT = Path("outputs") / "evaluation"


def add_evaluate(commands: argparse._SubParsersAction) -> None:
    """The options of ``medserl evaluate``."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a model's assessor on labelled notes",
        description="Ask a model about labelled notes and report how often it is right.",
        epilog="Hydra overrides of the engine's configuration may follow the options, e.g. "
        "actor_rollout_ref.rollout.tensor_model_parallel_size=4",
    )
    parser.set_defaults(run=run_evaluate)
    parser.add_argument("--model", metavar="PATH", help="a model directory, a cached hub name, or builtin:ward")
    parser.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="SOURCE",
        help="labelled notes: MEDEC CSV, prepared Parquet, ward:validation or ward:test; may be repeated",
    )
    parser.add_argument(
        "--count", type=int, help="ward notes to make (default: 300), or texts to take from each file (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of sampling, bootstrap and ward notes (default: 0)")
    parser.add_argument(
        "--format",
        dest="output_format",
        default="flag",
        choices=("flag", "full"),
        help="flag asks for the verdict; full also for the wrong sentence's number and its correction",
    )
    add_decoding(parser)
    parser.add_argument(
        "--prompt-set", metavar="NAME", help="a shipped prompt set or a folder (default: the configuration's)"
    )
    parser.add_argument("--thinking", action=argparse.BooleanOptionalAction, help="Qwen3's thinking mode")
    parser.add_argument("--config", metavar="NAME", help="the configuration with the engine's settings")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where the results go (default: {DEFAULT_OUT}/…)")
    parser.add_argument("--keep-text", action="store_true", help="also write notes and replies into predictions.jsonl")


def run_evaluate(options: argparse.Namespace, overrides: list[str]) -> int:
    """Evaluate, write the results, print the report."""
    from medserl.evaluation.data import load_examples
    from medserl.evaluation.kept import kept_beside
    from medserl.evaluation.markdown import results_markdown
    from medserl.evaluation.results import check_out, write_results
    from medserl.evaluation.run import evaluate, looked_at
    from medserl.report.terminal import show_markdown

    out, problems, data = options.out or _default_out(options.model, options.data), Problems(), None
    with problems.noted():
        check_out(out)
    with problems.noted():
        data = load_examples(options.data, options.count, options.seed)
    request = asked_of(
        options, overrides, data=tuple(options.data), count=options.count, output_format=options.output_format
    )
    with progress_on_stderr():
        ready = looked_at(request, problems)
        assert data is not None
        with kept_beside(out) as kept:
            results, scored = evaluate(ready, data, ["medserl", *sys.argv[1:]], kept)
            write_results(out, results, scored, options.keep_text)
    show_markdown(results_markdown(results))
    print(f"results in {out}")
    return EXIT_OK


def asked_of(options: argparse.Namespace, overrides: Sequence[str], **more: Any) -> Request:
    """What the options that say model and decoding ask for, and what else a command asks for itself."""
    from medserl.evaluation.run import Request

    return Request(
        model=options.model,
        seed=options.seed,
        samples=options.samples,
        temperature=options.temperature,
        max_tokens=options.max_tokens,
        prompt_set=options.prompt_set,
        thinking=options.thinking,
        config=options.config,
        overrides=tuple(overrides),
        **more,
    )


@contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Shows what the package logs while the block runs; vLLM draws its own bars."""
    logger, handler = logging.getLogger("medserl"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("medserl: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def _default_out(model: str | None, data: list[str]) -> Path:
    parts = [Path(model or "").name, *(Path(source).stem for source in data[:1]), time.strftime("%Y%m%d-%H%M%S")]
    return DEFAULT_OUT / "_".join(filter(None, parts)).replace(":", "-")
