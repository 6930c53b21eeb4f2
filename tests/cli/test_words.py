"""The command line's own words: groups, and suggestions for a mistyped command or option."""

from __future__ import annotations

import pytest

from medserl.cli.main import build_parser, main
from medserl.cli.words import GROUPS, _commands


def test_every_command_is_in_one_group() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(_commands(build_parser()))


def test_medserl_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "see how it went:" in said and "\n  train " in said
    assert max(map(len, said.splitlines())) <= 100
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0 and capsys.readouterr().out == said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "'trian' is not a command; did you mean train?"),
        (["xyz"], "'xyz' is not a command; known: train, sft, export"),
        (["data", "prepar"], "'prepar' is not a command; did you mean prepare?"),
        (["train", "--max-ruonds", "3"], "'--max-ruonds' is not an option; did you mean --max-rounds"),
        (["train", "--max-ruonds=3"], "'--max-ruonds=3' is not an option; did you mean --max-rounds"),
        (["slurm", "render", "--tiem=1", "preflight"], "'--tiem=1' is not an option; did you mean --time"),
        (["train", "rounds"], "'rounds' is not an option; overrides look like key=value"),
        (["evaluate", "--format", "fulll"], "'fulll' is not a choice; did you mean full?"),
        (["plan", "--nodes", "1.5"], "--nodes '1.5': is not a whole number"),
        (["plan", "--host-memory=much"], "--host-memory 'much': is not a number"),
        (["games"], "required: RUN"),
    ],
)
def test_a_mistyped_word_gets_a_sentence_and_a_suggestion(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1 and "--help` lists the choices" in said
