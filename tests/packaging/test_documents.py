"""Every command that a document shows is one that exists, with options and keys that exist; the runs themselves are
elsewhere (tests/e2e, tests/cluster, tests/images). A command that no rule here can check fails."""

import argparse
import ast
import contextlib
import functools
import importlib
import io
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from medserl.cli.arguments import parse_arguments
from medserl.cli.main import build_parser
from medserl.cli.words import options_of
from medserl.config.load import available_configs, is_sft_config, load_config, load_sft_config
from medserl.errors import ConfigError
from medserl.slurm.request import SCRIPTS

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(path.relative_to(ROOT).as_posix() for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(
    r"^(?P<indent> *)(?P<mark>```+)(?P<kind>[^\n`]*)\n(?P<text>.*?)^ *(?P=mark) *$", re.MULTILINE | re.DOTALL
)
VARIABLE = re.compile(r"[A-Za-z_]\w*=")
LEFT_OUT = "…"
SHOWN = ("", "text", "tower", "jinja")
"""Blocks of these kinds show output, pictures and files."""


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Kind and content of every fenced block."""
    return ((found["kind"].partition(" ")[0], found["text"]) for found in FENCE.finditer(text))


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a block of shell, in words, without comments and what stands for something left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        # Behind an option it stands for a value.
        words = [w for i, w in enumerate(words) if w != LEFT_OUT or (i and words[i - 1].startswith("--"))]
        while words and VARIABLE.match(words[0]):
            words = words[1:]
        if words:
            yield words


@functools.cache
def parser() -> argparse.ArgumentParser:
    return build_parser()


@functools.cache
def configuration(sft: bool) -> DictConfig:
    return load_sft_config() if sft else load_config()


def parsed(make: argparse.ArgumentParser, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What argparse makes of a command; its complaint is the failure."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse_arguments(make, words)
    except SystemExit as error:
        raise AssertionError(f"{' '.join(words)}: {said.getvalue()}") from error


def medserl(words: list[str]) -> None:
    options, overrides = parsed(parser(), words)
    if options.command == "image" and words[1] == "run":
        return medserl(options.arguments) if options.arguments else None
    if options.command == "slurm" and words[1] in ("render", "submit"):
        return medserl(["evaluate" if options.script == "evaluate" else "train", *options.arguments])
    sft = options.command == "sft"
    name = getattr(options, "config", None)
    if isinstance(name, str) and not name.endswith(".yaml"):  # a reader's own file: tests/game/test_extending.py
        assert name in available_configs(), f"{name} is no configuration"
        sft = is_sft_config(name)
    if (key := getattr(options, "explain", None)) is not None and key.islower():
        known(configuration(sft), key)
    for override in overrides:
        known(configuration(sft), override.partition("=")[0])


def known(config: DictConfig, key: str) -> None:
    """A key of a configuration; one that is added (``+``) needs a section to stand in."""
    place = key.lstrip("+~")
    if key.startswith("+"):
        place = place.rpartition(".")[0]
    missing = object()
    assert OmegaConf.select(config, place, default=missing) is not missing, f"{key} is no key"


def bootstrap(words: list[str], make: ModuleType, check: ModuleType) -> None:
    options = make.make_parser().parse_args(words[1:])
    if options.command == "train":
        medserl(["train", *options.arguments])
    elif options.command == "test":
        check.parse(options.arguments)
    else:
        assert options.command == "setup" and set(options.arguments) <= {"--dev", "--packages"}, words


def python(words: list[str], make: ModuleType, check: ModuleType) -> None:
    if words[0] == "bootstrap.py":
        return bootstrap(words, make, check)
    if words[:2] == ["-m", "medserl"]:
        return medserl(words[2:])
    assert (ROOT / words[0]).is_file(), f"{words[0]} is no file here"
    if words[0] == "tools/check.py":
        check.parse(words[1:])
    return None


def docker(words: list[str]) -> None:
    if words[0] == "run":
        image = next(i for i, word in enumerate(words) if word.startswith("medserl:"))
        if words[image + 1 :]:
            medserl(words[image + 1 :])
    else:
        assert words[0] in ("build", "save"), words
        if "--target" in words:
            stage = words[words.index("--target") + 1]
            assert re.search(rf"^FROM .* AS {stage}$", (ROOT / "Dockerfile").read_text(), re.MULTILINE | re.IGNORECASE)


def sbatch(words: list[str]) -> None:
    script = next(i for i, word in enumerate(words) if word.endswith(".sh"))
    assert (ROOT / words[script]).is_file() and Path(words[script]).stem in SCRIPTS
    medserl(["train", *words[script + 1 :]])


def salloc(words: list[str]) -> None:
    medserl(words[words.index("medserl") + 1 :])


def copied(words: list[str]) -> None:
    assert (ROOT / words[0]).is_file(), words


RULES: dict[str, Callable[[list[str]], None]] = {
    "medserl": medserl,
    "docker": docker,
    "sbatch": sbatch,
    "salloc": salloc,
    "cp": copied,
    "slurm/attach.sh": lambda words: medserl(["slurm", "attach", *words]),
    **dict.fromkeys(
        # Programs of others, with nothing of ours among their words but paths of a run.
        ("cd", "git", "grep", "hf", "mkdocs", "scontrol", "source", "squeue", "tail", "tensorboard", "vllm"),
        lambda words: None,
    ),
}


def check_command(words: list[str], make: ModuleType, check: ModuleType) -> None:
    name, rest = words[0], words[1:]
    if name in ("python", "python3"):
        return python(rest, make, check)
    assert name in RULES, (
        f"no rule says how `{' '.join(words)}` is checked; add one to tests/packaging/test_documents.py"
    )
    return RULES[name](rest)


def check_python(text: str) -> None:
    """It can be read, and what it imports is there; torch and verl stay where they are."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("medserl"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                there = set(getattr(module, "__all__", ())) | set(vars(module))
                assert name.name in there, f"{node.module} has no {name.name}"


def check_block(kind: str, text: str, make: ModuleType, check: ModuleType) -> None:
    if kind in ("bash", "sh", "console", "shell"):
        for words in commands(text):
            check_command(words, make, check)
    elif kind == "python":
        check_python(text)
    elif kind in ("yaml", "json"):
        yaml.safe_load(text)
    else:
        assert kind in (*SHOWN, "diff"), f"a block of {kind}: nothing checks it"
        run_by_hand = re.search(r"^\s*(\$ )?(medserl|python3?|sbatch|docker) \w", text, re.MULTILINE)
        assert run_by_hand is None, f"{run_by_hand[0] if run_by_hand else ''}…: a command in a block that is no bash"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_of_a_document_can_be_given(name: str, bootstrap: ModuleType, check: ModuleType) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for kind, content in blocks(text):
        check_block(kind, content, bootstrap, check)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_and_option_within_a_sentence_exists(name: str) -> None:
    prose = FENCE.sub("", (ROOT / name).read_text(encoding="utf-8"))
    for code in re.findall(r"`(medserl [a-z][^`]*)`", prose.replace("\n", " ")):
        words = code.split()[1:]
        named = [word for word in words if re.fullmatch("[a-z]+", word)]
        known_here = options_of(parser(), named)
        assert known_here != options_of(parser(), []), f"`{code}`: no such command"
        for option in (word.partition("=")[0] for word in words if re.match("--[a-z]", word)):
            assert option in known_here or words[0] in ("slurm", "image"), f"`{code}` has no {option}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("bash", "medserl trian"),
        ("bash", "medserl train --promt-data notes.jsonl"),
        ("bash", "medserl train actor_rollout_ref.model.pth=/models/x"),
        ("bash", "medserl train --config qwen3_4b_1nod"),
        ("bash", "medserl config --explain medserl.refere"),
        ("bash", "python3 bootstrap.py trian"),
        ("bash", "python3 bootstrap.py test --evrything"),
        ("bash", "python tools/chekc.py"),
        ("bash", "python3 bootstrap.py --device cuda train --max-rouns 2"),
        ("bash", "docker build --target cpuu ."),
        ("bash", "docker run medserl:cpu trian"),
        ("bash", "sbatch slurm/train_manynode.sh"),
        ("bash", "medserl slurm submit --nodes 4 train_manynode"),
        ("bash", "medserl image run medserl.sif trian"),
        ("bash", "WANDB_MODE=offline medserl train medserl.tracker=[wandb]"),
        ("bash", "rm -rf outputs"),
        ("", "medserl train --max-rounds 2"),
        ("ruby", "puts 1"),
        ("python", "from medserl import MedSerlTrainer"),
    ],
)
def test_a_command_that_does_not_exist_is_found(kind: str, text: str, bootstrap: ModuleType, check: ModuleType) -> None:
    with pytest.raises((AssertionError, ConfigError, SystemExit)):
        check_block(kind, text, bootstrap, check)
