"""docs/extending.md: its files are written, played with and given to the command line, as the page says."""

import asyncio
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import medserl.serving.judge
import medserl.ward  # noqa: F401 - registered once, so before the fixture copies the registers
from medserl.cli import main
from medserl.config.load import game_settings, load_config
from medserl.config.settings import GameSetup, make_setup
from medserl.data.rounds import labelled_notes, training_notes
from medserl.errors import EXIT_OK, EXIT_USAGE
from medserl.game import Game, Mode, Note, Reply, Role, play_game, round_metrics
from medserl.game import metrics as game_metrics
from medserl.game.referee import REFEREES
from medserl.game.rewards import REWARDS
from medserl.game.sources import SOURCES

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [shlex.split(text.replace("\\\n", " "))[1:] for kind, _, text in BLOCKS if kind == "bash"]
NOTE = Note("n", "He is 40. He was given 400 mg of ibuprofen daily for a week. He left well.")


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The page's files in the current folder, importable; nothing of them is left registered."""
    for kind, name, text in BLOCKS:
        if name:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            assert kind in ("python", "text", "yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (REFEREES, REWARDS, SOURCES):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(game_metrics, "_OWN", {})
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        module: ModuleType = sys.modules[name]
        if str(getattr(module, "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


def setup_of(*overrides: str) -> GameSetup:
    return make_setup(game_settings(load_config("embedded", list(overrides))))


def play(setup: GameSetup, note: Note = NOTE) -> Game:
    async def model(role: Role, messages: list[dict[str, str]]) -> Reply:
        if role is Role.ASSESSOR:
            return Reply('final_answer: "CORRECT"')
        sentence = note.text.split(". ")[1].replace("400 mg", "400 mL") + "."
        return Reply(f"sentence_id: 1\nnew_sentence: {sentence}")

    game = play_game(note, Mode.ERROR, generate=model, prompts=setup.prompts, rules=setup.rules, referee=setup.referee)
    return asyncio.run(game)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words)[16:50])
def test_each_command_passes(page: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == EXIT_OK, capsys.readouterr().err
    assert "nothing started" in capsys.readouterr().out


def test_the_referee_rules_and_its_option_counts(page: Path) -> None:
    chosen = ("medserl.plugins=[doses]", "medserl.referee.name=doses")
    assert play(setup_of(*chosen)).ruling.kind.value == "error"  # type: ignore[union-attr]
    unit = "+medserl.referee.options.unit=weeks"
    assert play(setup_of(*chosen, unit)).ruling.kind.value == "benign"  # type: ignore[union-attr]


def test_the_reward_pays_and_its_options_count(page: Path) -> None:
    chosen = ("medserl.plugins=[brief]", "medserl.referee.name=instruction")
    plain, brief = (play(setup_of(*chosen, f"medserl.rewards.name={name}")) for name in ("zero_sum", "brief"))
    assert brief.trajectories[0].reward == pytest.approx(plain.trajectories[0].reward - 0.1)
    fee = ("medserl.rewards.name=brief", "+medserl.rewards.options.fee=0.5", "medserl.rewards.format_bonus=0.3")
    assert play(setup_of(*chosen, *fee)).trajectories[0].reward == pytest.approx(1.0 + 0.3 - 0.5)


def test_the_note_source_gives_the_notes(page: Path) -> None:
    chosen = ["medserl.plugins=[colds]", "medserl.notes.source=colds", "+medserl.notes.options.count=3"]
    config = load_config("embedded", chosen)
    settings = game_settings(config)
    notes = training_notes(settings)
    assert len(notes) == 3 == len(labelled_notes(settings, notes))
    assert settings.referee.name == "instruction", "only the ward has an oracle"
    assert play(setup_of("medserl.referee.name=rules"), notes[0]).accepted is not None


def test_the_metric_is_reported(page: Path) -> None:
    setup = setup_of("medserl.plugins=[longest]", "medserl.referee.name=instruction")
    assert round_metrics([play(setup)])["edit/longest"] == 1.0


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["medserl.rewards.name=nil"], r"medserl.rewards.name='nil' is not known; choose one of: .*zero_sum"),
        (["medserl.notes.source=nil"], r"medserl.notes.source='nil' is not known; choose one of: files, ward"),
        (["medserl.referee.name=nil"], r"medserl.referee.name='nil' .*instruction, judge, oracle, rules"),
        (
            ["medserl.plugins=[brief]", "medserl.rewards.name=brief", "+medserl.rewards.options.fee=much"],
            "fee is 'much'",
        ),
        (["+medserl.rewards.options.fee=1"], "'zero_sum' does not take these options.*fee"),
        (["medserl.notes.source=ward", "medserl.notes.path=x.jsonl"], "medserl.notes.path"),
        (["medserl.notes.source=files"], "medserl.notes.path"),
        (["+medserl.notes.options.count=4"], "'ward' has count already"),
        (["medserl.plugins=[absent]"], "absent cannot be imported"),
        (["medserl.plugins=[raises]"], r"raises fails while it is imported \(RuntimeError: boom; .*raises.py, line 1"),
        (["medserl.plugins=[syntax]"], r"syntax fails while it is imported \(SyntaxError: .*syntax.py, line 1"),
        (["medserl.plugins=[leaves]"], "leaves fails while it is imported"),
    ],
)
def test_what_cannot_work_is_one_sentence(
    page: Path, overrides: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (page / "raises.py").write_text("raise RuntimeError('boom')\n")
    (page / "syntax.py").write_text("def (\n")
    (page / "leaves.py").write_text("import sys; sys.exit(0)\n")
    assert main(["train", "--dry-run", *overrides]) == EXIT_USAGE
    said = capsys.readouterr().err.strip()
    assert len(said.splitlines()) == 1
    assert re.search(told, said), said
