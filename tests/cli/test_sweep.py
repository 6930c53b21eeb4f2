"""Whatever is given for an option ends in a sentence: every command and every option that takes a value, as the parsers
have them, so that a new one is swept by itself.

A command is called in process with one option replaced by something bad. It may refuse (2) or fail (1) in words, or
take it (0); it may not raise, nor wait for what never comes. What starts other programs is cut off. A few of them are
quick; all of them take minutes, most of which go into composing configurations, and run nightly.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medserl.cli.main import build_parser, main
from medserl.run import checkpoint
from medserl.ward import MODEL_DIR
from tests.evaluation.made import FLAG, examples, scored, stored

NOTE = {"note_id": "a", "text": "He is well."}
ANSWERS = {0, 1, 2}
# What every command needs besides the option that is swept; paths are below the folder of ``world``.
NEEDED: dict[tuple[str, ...], list[str]] = {
    ("train",): ["--dry-run", "medserl.notes.count=64", "medserl.validation.count=4"],
    ("sft",): ["--dry-run"],
    ("export",): ["run", "--out", "exported"],
    ("ablate",): ["grid.yaml", "--out", "bench", "--report", "--notes", "1"],
    ("config",): ["--section", "medserl.seed"],
    ("doctor",): ["--quick", "--here"],
    ("data", "prepare"): ["notes.jsonl", "--out", "prepared"],
    ("data", "stats"): ["notes.jsonl"],
    ("data", "ward"): ["--count", "2", "--out", "ward"],
    ("evaluate",): ["--model", "builtin:ward", "--data", "ward:test", "--count", "1", "--out", "evaluated"],
    ("compare",): ["results", "results"],
    ("report",): ["run"],
    ("games",): ["run"],
    ("watch",): ["run"],
    ("check",): ["notes.jsonl", "--model", "builtin:ward", "--out", "checked.csv"],
    ("pipeline",): ["--dry-run", "--out", "pipeline", "--count", "64"],
    ("slurm", "render"): ["preflight"],
    ("slurm", "submit"): ["preflight"],
    ("slurm", "attach"): ["5"],
    ("slurm", "step", "free-port"): ["127.0.0.1", "5"],
    ("slurm", "step", "wait-for-nodes"): ["--nodes", "1", "--gpus", "0", "--seconds", "0"],
    ("slurm", "step", "plan"): [
        *("--out", "plan.json", "--nodes", "1", "--gpus-per-node", "2", "--cpus-per-node", "8", "--"),
        *("train", "--config", "embedded"),
    ],
    ("slurm", "step", "check-node"): [
        *("--node", "a", "--plan", "plan", "--out", "records", "--run-dir", "checked", "--tmp", ".", "--nodes", "a"),
        *("--level", "quick"),
    ],
    ("slurm", "step", "preflight-report"): ["--folder", "records", "a"],
    ("selftest",): [],
    ("health",): [],
    ("plan",): [],
    ("bringup",): [],
    ("image", "build"): ["a.sif"],
    ("image", "run"): ["--print", "image.sif"],
    ("image", "shell"): ["--print", "image.sif"],
    ("image", "test"): ["--print", "image.sif"],
    ("image", "inspect"): ["image.sif"],
}
# A value that names a file only behind something else.
FORMS = {"--split": "test={}", "--from": "docker-archive:{}", "--bind": "{}:/x", "--sbatch": "--comment={}"}
NUMBERS = ("-1", "0", "9" * 30, "1e400", "nan", "-inf", "x")
# Files that are none, and places that nothing can be written to; below the folder of ``world``.
PATHS = (
    *("bad/missing.jsonl", "bad/directory.jsonl", "bad/empty.jsonl", "bad/garbage.jsonl", "bad/latin.csv"),
    *("bad/list.json", "bad/cut.json", "bad/deep.yaml", "bad/cut.parquet", "bad/pipe.jsonl", "bad/dangling.yaml"),
    *("bad/loop.jsonl", "bad/unreadable.jsonl", "bad/list.jsonl/below", "bad/closed/new", "bad/dangling.yaml/new"),
    *("/dev/full", "/proc/nowhere", "", "x" * 300, "a\nb", "\udcff.jsonl", "${x}", "???", "~nobody/x", "-"),
)


MOST_MEMORY = 16 << 30  # bytes of addresses, of which torch and its like reserve many
LONGEST = 300  # seconds of one command on a busy machine; the first one imports transformers


class Started(Exception):
    """Something would have been started: all checks have passed."""


class Waits(BaseException):
    """Something was waited for."""


def leaves(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its parser."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for name, child in action.choices.items():
            yield from leaves(child, (*path, name))
    if not below:
        yield path, parser


LEAVES = dict(leaves(build_parser()))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what every command needs, and with much that is no good."""
    from tests.report.test_run_report import make_run

    folder = tmp_path_factory.mktemp("world")
    bad = folder / "bad"
    (bad / "directory.jsonl").mkdir(parents=True)
    contents: dict[str, bytes] = {
        "empty.jsonl": b"",
        "garbage.jsonl": bytes(range(256)) * 8,
        "latin.csv": "note_id,text\na,caf\xe9\n".encode("latin-1"),
        "list.json": b"[1, 2]",
        "list.jsonl": b'["a"]\n',
        "cut.json": b'{"format_version": 1, "data": {',
        "deep.yaml": b"[" * 20_000,
        "cut.parquet": b"PAR1" + bytes(64) + b"PAR1",
        "unreadable.jsonl": b"{}",
    }
    for name, content in contents.items():
        (bad / name).write_bytes(content)
    os.mkfifo(bad / "pipe.jsonl")
    (bad / "dangling.yaml").symlink_to("nowhere/at/all")
    (bad / "loop.jsonl").symlink_to("loop.jsonl")
    (bad / "closed").mkdir()
    (folder / "notes.jsonl").write_text(json.dumps(NOTE) + "\n")
    (folder / "grid.yaml").write_text("arms:\n  a: [medserl.seed=1]\n")
    (folder / "image.sif").write_text("x")
    for name in ("plan", "records"):
        (folder / name).mkdir()
    make_run(folder / "run")
    staged = checkpoint.staging_dir(folder / "run/checkpoints") / "global_step_30"
    shutil.copytree(MODEL_DIR, staged / "actor/model/huggingface")
    checkpoint.publish(folder / "run/checkpoints", 30, {}, None)
    checkpoint.mark_best(folder / "run/checkpoints", 30, "val/greedy/mcc", 0.5)
    stored(folder / "results", [scored(item, FLAG.format(item.label.value)) for item in examples(2)])
    (bad / "unreadable.jsonl").chmod(0)
    (bad / "closed").chmod(0o500)
    yield folder
    (bad / "closed").chmod(0o700)


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started, and nothing is waited for."""

    def started(*_: Any, **__: Any) -> Any:
        raise Started

    for name in ("execv", "execvp"):
        monkeypatch.setattr(os, name, started)
    for name in (
        "medserl.evaluation.engine.assess",
        "medserl.ablation.cell.judge",
        "medserl.slurm.request.submit",
        "medserl.slurm.ray_steps.wait_for_nodes",
        "medserl.cli.selftest._train",
        "medserl.cli.doctor.look_at_all_nodes",
        "medserl.report.live.Server.serve_forever",
        "medserl.cli.bringup.Runner",
    ):
        monkeypatch.setattr(name, started)
    monkeypatch.setattr("medserl.cli.image.find_runtime", lambda *_: "/bin/true")


def values(action: argparse.Action) -> tuple[str, ...]:
    """What is tried for an option; none where it takes no value of its own."""
    if action.nargs in (0, argparse.REMAINDER) or action.choices or isinstance(action, argparse.BooleanOptionalAction):
        return ()
    form = FORMS.get(next(iter(action.option_strings), ""), "{}")
    return NUMBERS if action.type in (int, float) else (*(form.format(path) for path in PATHS),)


def words_with(command: tuple[str, ...], action: argparse.Action, value: str) -> list[str]:
    """The command line with one option replaced."""
    needed = NEEDED[command]
    if action.option_strings:
        option = action.option_strings[-1]
        if option in needed:
            at = needed.index(option)
            needed = [*needed[:at], *needed[at + 2 :]]
        return [*command, f"{option}={value}", *needed]
    own = getattr(LEAVES[command].parse_known_args(needed)[0], action.dest)
    if own in (None, []):  # nothing is needed there
        return [*command, value, *needed]
    word = str(own[0] if isinstance(own, list) else own)
    places = [at for at, given in enumerate(needed) if given == word]
    at = places[-1 if action.dest == "second" else 0]
    return [*command, *needed[:at], value, *needed[at + 1 :]]


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> str | None:
    """What is wrong with how a command ends; None where nothing is."""
    try:
        code = main(words)
    except Started:
        return None
    except SystemExit as left:  # argparse
        code = left.code if isinstance(left.code, int) else 1
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    told = capsys.readouterr().err
    if code not in ANSWERS:
        return f"exit code {code}"
    if code == 2 and "error: " not in (told.strip().splitlines() or [""])[-1]:
        return f"no sentence: {told[-200:]!r}"
    return None


def test_every_command_is_swept() -> None:
    """A new command says here what it needs."""
    assert LEAVES.keys() == NEEDED.keys()


def too_long(*_: object) -> None:
    raise Waits


def leftovers(before: set[Path], folder: Path) -> None:
    """What a command left goes."""
    new = sorted(set(folder.rglob("*")) - before)
    for path in reversed(new):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def sweep(
    command: tuple[str, ...], world: Path, capsys: pytest.CaptureFixture[str], only: tuple[str, ...] | None = None
) -> list[str]:
    """What went wrong with the options of a command, ``only`` with some of the values."""
    before, umask, faults = set(world.rglob("*")), os.umask(0o022), []
    signal.signal(signal.SIGALRM, too_long)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, limits[1]))  # a device that is read has no end
    try:
        for action in LEAVES[command]._actions:
            for value in values(action):
                if only is not None and value not in only:
                    continue
                words = words_with(command, action, value)
                signal.alarm(LONGEST)
                fault = run(words, capsys)
                signal.alarm(0)
                leftovers(before, world)
                if fault is not None:
                    faults.append(f"{words}: {fault}")
    finally:
        signal.alarm(0)
        os.umask(umask)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return faults


FEW = ("-1", "nan", "bad/directory.jsonl", "bad/deep.yaml", "bad/pipe.jsonl", "a\nb", "\udcff.jsonl", "/dev/full")


@pytest.mark.usefixtures("cut_off")
@pytest.mark.parametrize(
    "command", [("report",), ("export",), ("health",), ("data", "ward"), ("slurm", "step", "free-port")], ids=" ".join
)
def test_a_few_bad_values_end_in_a_sentence(
    command: tuple[str, ...], world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    assert sweep(command, world, capsys, FEW) == []


@pytest.mark.nightly
@pytest.mark.usefixtures("cut_off")
@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_nothing_ends_in_a_traceback(
    command: tuple[str, ...], world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world)
    assert sweep(command, world, capsys) == []
