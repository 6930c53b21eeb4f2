"""The course of `medserl selftest --real`: its commands, its notes, what it keeps, how it goes on and fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from medserl.cli import selftest
from medserl.cli.arguments import parse_arguments
from medserl.cli.main import build_parser, main
from medserl.errors import ConfigError, DataError
from medserl.evaluation.readiness import Readiness
from medserl.game import Note
from medserl.proof import memory
from medserl.proof.course import Course, course_of, find_notes
from medserl.proof.notes import around_the_error, cut_notes
from medserl.proof.run import Proof, StageFailed
from tests.shapes import QWEN3_4B

NOT_READY = Readiness(10, 5, 8, {"no_change": 5}, 20, 20, 18, {"CORRECT": 20})
READY = replace(NOT_READY, first_accepted=6, parsed=19)
PAIR = {"note_id": "a", "correct_note": "He has asthma. He coughs.", "incorrect_note": "He has anemia. He coughs."}


@pytest.fixture
def course(tmp_path: Path) -> Course:
    files = [tmp_path / "train.jsonl", tmp_path / "Validation.jsonl"]
    long = {**PAIR, "note_id": "b", "correct_note": "well " * 150 + ".", "incorrect_note": "well " * 150 + "x."}
    for file in files:
        file.write_text("".join(json.dumps(row) + "\n" for row in (PAIR, long)))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(QWEN3_4B | {"num_hidden_layers": 1, "hidden_size": 64}))
    return Course(tmp_path / "model", *files, tmp_path / "out")


def test_every_command_is_one_that_medserl_takes(course: Course) -> None:
    commands = [course.zero_shot(), course.warm_up(1), course.warm_up(2), course.play(course.warm_model(2))]
    for arguments in (*commands, course.export(), course.trained()):
        options, overrides = parse_arguments(build_parser(), arguments)
        assert options.command == arguments[0]
        assert all("=" in word for word in overrides)
    assert str(course.warm_model(1)) in course.warm_up(2)


def test_a_larger_model_has_fewer_and_smaller_steps(course: Course) -> None:
    assert course_of(course.model, course.train.parent, course.out) == course
    (course.model / "config.json").write_text(json.dumps(QWEN3_4B))
    larger = course_of(course.model, course.train.parent, course.out)
    assert larger.steps < course.steps and larger.learning_rate < course.learning_rate
    assert "optim.lr=5e-05" in larger.warm_up(1) and "optim.min_lr=1.25e-05" in larger.warm_up(1)
    for arguments in (larger.zero_shot(), larger.trained(), larger.probe(larger.model, "ready")):
        assert "actor_rollout_ref.rollout.dtype=bfloat16" in arguments
    (course.model / "config.json").unlink()
    with pytest.raises(ConfigError, match="--real: .* has no config.json"):
        course_of(course.model, course.train.parent, course.out)


def test_a_model_is_ready_by_both_shares(course: Course) -> None:
    assert course.ready(READY)
    for change in ({"first_accepted": 5}, {"parsed": 18}):
        assert not course.ready(replace(READY, **change))


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["MEDEC-MS-TrainingSet.csv"], "'train' in its name is needed, and there is none"),
        (["train.csv"], "'valid' in its name is needed, and there is none"),
        (["train.csv", "b_train.jsonl", "valid.csv"], "there are b_train.jsonl, train.csv"),
        (["train.xlsx", "valid.csv"], "'train' in its name is needed, and there is none"),
    ],
)
def test_medecs_files_are_found_by_their_names(tmp_path: Path, names: list[str], told: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    if names == ["MEDEC-MS-TrainingSet.csv"]:
        (tmp_path / "MEDEC-MS-ValidationSet.csv").touch()
        assert [path.name for path in find_notes(tmp_path)] == [*names, "MEDEC-MS-ValidationSet.csv"]
        return
    with pytest.raises(ConfigError, match="one file") as error:
        find_notes(tmp_path)
    assert told in str(error.value)
    with pytest.raises(ConfigError, match="is not a directory"):
        find_notes(tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------------- the run


class Commands:
    """Stands in for `subprocess.Popen`: notes what is started, and leaves what each command would."""

    pid = 0

    def __init__(self, course: Course, ready: Sequence[Readiness], fails: str = "", code: int = 1) -> None:
        self.course, self.ready, self.fails, self.code = course, list(ready), fails, code
        self.started: list[str] = []

    def __call__(self, command: Sequence[str]) -> Commands:
        what = command[4] if command[3] == "medserl" else "probe"
        self.started.append(what)
        if what == "probe":
            out = Path(command[command.index("--out") + 1])
            found = self.ready.pop(0) if self.ready else READY
            out.write_text(json.dumps({name: getattr(found, name) for name in Readiness.__slots__}))
        elif what == "evaluate":
            folder = Path(command[command.index("--out") + 1])
            folder.mkdir()
            flag = {"accuracy": 0.5, "balanced_accuracy": 0.5, "n": 4, "parse_failures": 1}
            intervals = {"accuracy": [0.1, 0.9], "balanced_accuracy": [0.1, 0.9]}
            (folder / "results.json").write_text(json.dumps({"metrics": {"flag": flag, "intervals": intervals}}))
        elif what == "train":
            (self.course.out / "game").mkdir(exist_ok=True)
            (self.course.out / "game" / "metrics.jsonl").write_text('{"round": 1, "mean_reward": 0.25}\n')
        return self

    def wait(self) -> int:
        return self.code if self.started[-1] == self.fails else 0

    def terminate(self) -> None:
        raise AssertionError("nobody asked for that")

    def send_signal(self, number: int) -> None:
        self.code = -number


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Commands]:
    def stand_in(*arguments: Any, **options: Any) -> Commands:
        made = Commands(*arguments, **options)
        monkeypatch.setattr(subprocess, "Popen", made)
        return made

    return stand_in


PLAYED = ["train", "export", "evaluate", "probe"]


def test_a_warm_start_goes_on_until_the_model_is_ready(course: Course, commands: Callable[..., Commands]) -> None:
    made = commands(course, [NOT_READY, READY])
    Proof(course).run()
    assert made.started == ["evaluate", "sft", "probe", "sft", "probe", *PLAYED]
    kept = [json.loads(line) for line in course.notes.read_text().splitlines()]
    assert kept == [PAIR]  # the other one is too long
    table = (course.out / "real.md").read_text()
    assert "5 of 10 first edits pass the filter (50%), 8 after all attempts (rejected: 5 no_change)" in table
    assert "accuracy 0.50 (0.10 to 0.90)" in table and "round 1: mean_reward 0.25" in table
    assert (
        "sentences around their gold error, none of more than 250 characters" in table
        and "medserl sft --model" in table
    )


def test_a_cut_note_keeps_its_error_and_what_stands_around_it() -> None:
    sentences = [f"Number {i} is well." for i in range(9)]
    places = set()
    for i in range(60):
        wrong = [*sentences]
        wrong[i % 9] = "This one is ill."
        note = Note(str(i), " ".join(sentences), " ".join(wrong))
        cut = around_the_error(note, 4)
        assert cut is not None and cut == around_the_error(note, 4) and cut.error_text is not None
        first = int(cut.text.split()[1])
        assert cut.text == " ".join(sentences[first : first + 4])
        assert cut.error_text == " ".join(wrong[first : first + 4]) != cut.text
        if i % 9 == 4:
            places.add(4 - first)
    assert places == {0, 1, 2, 3}
    assert around_the_error(Note("a", "One. Two.", "One."), 4) is None
    assert around_the_error(Note("a", "He is well.", "He is ill."), 4) == Note("a", "He is well.", "He is ill.")


def test_notes_of_which_none_is_left_are_refused(course: Course) -> None:
    course.train.write_text(json.dumps({"note_id": "a", "text": "He is well. She is ill."}) + "\n")
    with pytest.raises(DataError, match="and, around it, no sentence of more than 700"):
        cut_notes(course.train, course.notes, 5, 700)
    assert not course.notes.exists()


def test_it_gives_up_after_so_many_rounds_and_plays_all_the_same(
    course: Course, commands: Callable[..., Commands]
) -> None:
    made = commands(course, [NOT_READY] * 9)
    proof = Proof(course)
    proof.run()
    assert made.started.count("sft") == course.warm_rounds and made.started[-4:] == PLAYED
    assert proof.readiness() == NOT_READY


def test_the_same_course_goes_on_with_what_failed(course: Course, commands: Callable[..., Commands]) -> None:
    commands(course, [], fails="train")
    with pytest.raises(StageFailed, match="self-play ended with exit code 1"):
        Proof(course).run()
    made = commands(course, [])
    Proof(course).run()
    assert made.started == PLAYED
    with pytest.raises(ConfigError, match="is of another model or other notes"):
        Proof(replace(course, model=course.model / "other"))


def test_what_tells_it_to_stop_tells_the_command(course: Course, commands: Callable[..., Commands]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    made = commands(course, [], fails="sft", code=0)
    wait = made.wait

    def told_to_stop() -> int:
        if made.started[-1] == "sft":
            os.kill(os.getpid(), signal.SIGTERM)
        return wait()

    made.wait = told_to_stop  # type: ignore[method-assign]
    with pytest.raises(StageFailed, match="warm start 1 ended with signal 15"):
        Proof(course).run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_folder_of_something_else_is_refused(course: Course) -> None:
    course.out.mkdir()
    (course.out / "x").touch()
    with pytest.raises(ConfigError, match=r"is not empty and holds no stages\.json"):
        Proof(course)


def test_the_command_says_what_is_missing(
    course: Course,
    commands: Callable[..., Commands],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["selftest", "--real", str(course.model), "--notes", str(course.train.parent)]
    assert main(given[:3]) == 2 and "go together" in capsys.readouterr().err
    assert main([*given, "optim.lr=1"]) == 2 and "takes no overrides" in capsys.readouterr().err
    monkeypatch.setattr(selftest, "look_at", lambda folder, rounds: [selftest.Check("rounds", True, "3 of 3")])
    commands(course, [NOT_READY] * 9)
    assert main([*given, "--run-dir", str(course.out)]) == 1
    assert "selftest failed: warm start (wanted: 60% of the first edits" in capsys.readouterr().out
    again = replace(course, out=course.out.with_name("again"))
    commands(again, [])
    assert main([*given, "--run-dir", str(again.out)]) == 0
    assert "selftest passed: model through every command" in capsys.readouterr().out
    commands(course, [], fails="evaluate", code=2)
    assert main([*given, "--run-dir", str(course.out.with_name("third"))]) == 1
    assert "zero-shot was refused; see above" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------- memory


def test_memory_is_that_of_a_process_and_all_below_it(tmp_path: Path) -> None:
    for pid, parent, size in ((7, 1, 10), (8, 7, 20), (9, 8, 40), (10, 1, 80), (11, 7, None)):
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "stat").write_text(f"{pid} (a (b) c) S {parent} 0")
        if size is not None:
            (folder / "smaps_rollup").write_text(f"x rollup\nRss: 999 kB\nPss:   {size} kB\nPss_Anon: 3 kB\n")
    (tmp_path / "12").mkdir()  # has ended
    assert sorted(memory.tree(7, tmp_path)) == [7, 8, 9, 11]
    assert memory.held(memory.tree(7, tmp_path), tmp_path) == 70 * 1024


def test_the_most_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = iter([5, 9, 3])
    monkeypatch.setattr(memory, "EVERY", 0.001)
    monkeypatch.setattr(memory, "tree", lambda root: [root])
    seen: list[int] = []
    monkeypatch.setattr(memory, "held", lambda pids: seen.append(next(sizes, 0)) or seen[-1])
    peak = memory.Peak(1)
    while len(seen) < 4:
        pass
    assert peak.stop() == 9
