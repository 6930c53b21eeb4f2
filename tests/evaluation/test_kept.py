"""Answers that were given are kept, whatever ends an evaluation, and the same command goes on from them."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.cli.main import main
from medserl.errors import EXIT_FAILURE, EXIT_OK, ConfigError
from medserl.evaluation import engine
from medserl.evaluation.kept import KeptAnswers, kept_beside
from medserl.evaluation.votes import Vote
from medserl.game.labels import Label
from medserl.game.reply import Form

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
votes = st.builds(
    Vote,
    answer=st.none() | st.sampled_from(Label),
    sentence_id=st.none() | st.integers(-1, 9),
    correction=st.none() | st.text(max_size=9),
    failure=st.none() | st.text(max_size=9),
    p_incorrect=st.none() | st.floats(0, 1),
    tokens=st.integers(0, 99),
    cut=st.booleans(),
    reply=st.text(max_size=20),
    form=st.none() | st.sampled_from(Form),
)
answers = st.dictionaries(st.integers(0, 5), st.tuples(votes, votes), max_size=4)


def kept_in(folder: Path, asked: object = "asked") -> KeptAnswers:
    kept = KeptAnswers(folder)
    kept.take_up(asked, texts=6, samples=2)
    return kept


@settings(max_examples=40, deadline=None)
@given(parts=st.lists(answers, max_size=3), cut=st.integers(0, 400))
def test_what_was_kept_comes_back_and_a_cut_costs_the_last_only(
    tmp_path_factory: pytest.TempPathFactory, parts: list[dict[int, tuple[Vote, ...]]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("kept")
    kept = kept_in(folder)
    given_: dict[int, tuple[Vote, ...]] = {}
    for part in parts:
        kept.keep(part)
        given_ |= part
    assert kept.votes == given_
    kept.left()
    assert len(list(folder.iterdir())) == (1 if given_ else 0)
    again = kept_in(folder)
    assert again.votes == given_
    again.left()
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        whole = path.read_bytes()
        path.write_bytes(whole[: -min(cut, len(whole))] if cut else whole)  # killed while it wrote
        rest = kept_in(folder)
        lines = [line for line in whole[: len(whole) - cut].split(b"\n") if line.endswith(b"}]}")]
        assert len(rest.votes) <= len(lines) and all(index in given_ for index in rest.votes)
        rest.keep(given_)
        rest.left()
        last = kept_in(folder)
        assert last.votes == given_
        last.remove()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("line", ["", "[]", "{", '{"text": 0}', '{"text": "0", "votes": []}', "\x00", "[" * 9999])
def test_a_line_that_is_none_is_no_answer(tmp_path: Path, line: str) -> None:
    kept = kept_in(tmp_path)
    kept.keep({3: (Vote(Label.CORRECT), Vote(None))})
    kept.left()
    (path,) = tmp_path.iterdir()
    path.write_text(f"{line}\n{path.read_text()}{line}")
    assert list(kept_in(tmp_path).votes) == [3]


def test_another_request_has_answers_of_its_own_and_the_same_one_is_asked_once(tmp_path: Path) -> None:
    kept = kept_in(tmp_path)
    kept.keep({0: (Vote(None), Vote(None))})
    assert kept_in(tmp_path, "another").votes == {}
    with pytest.raises(ConfigError, match="are being asked about already"), kept_beside(tmp_path / "out") as second:
        second.take_up("asked", 6, 2)
    assert len(list(tmp_path.glob(".answers-*"))) == 2, "the first one's are still there"


class Model:
    """Instead of vLLM: answers CORRECT, and says how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int] = []
        self.fails: dict[int, BaseException] = {}
        monkeypatch.setattr(engine, "_start", lambda *_: self)
        monkeypatch.setattr(engine, "_generate", self.generate)
        monkeypatch.setattr(engine, "_with_probabilities", lambda *given_: [list(own) for own in given_[-1]])
        monkeypatch.setattr(engine, "_KEPT_AT_ONCE", 4)
        monkeypatch.setattr(engine, "prepare_device", lambda config: "cpu")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def generate(self, _: Any, prompts: Sequence[Any], __: Any, places: Sequence[int]) -> list[list[Any]]:
        self.asked += places
        if error := self.fails.get(len(self.asked)):
            raise error
        made = SimpleNamespace(text='final_answer: "CORRECT"', token_ids=[1, 2], finish_reason="stop")
        return [[made] for _ in prompts]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Model:
    return Model(monkeypatch)


def command(out: Path) -> list[str]:
    return ["evaluate", "--model", "builtin:ward", "--data", "ward:test", "--count", "5", "--out", str(out)]


def test_a_disk_that_is_full_at_the_end_costs_no_answer(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, undisturbed = tmp_path / "new/out", tmp_path / "undisturbed"

    def full(*_: object) -> None:
        raise FULL

    with monkeypatch.context() as patch:
        patch.setattr("medserl.evaluation.results.results_markdown", full)
        assert main(command(out)) == EXIT_FAILURE
    said = capsys.readouterr().err.splitlines()[-1]
    assert "No space left on device; the answers to 10 texts are kept in " in said and "make room" in said
    assert [path.name[:9] for path in out.parent.iterdir()] == [".answers-"], "nothing half-written"
    assert model.asked == list(range(10))
    assert main(command(out)) == EXIT_OK
    assert model.asked == list(range(10)), "nothing was asked again"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert main(command(undisturbed)) == EXIT_OK
    assert (out / "predictions.jsonl").read_text() == (undisturbed / "predictions.jsonl").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), FULL, MemoryError()], ids=["Ctrl-C", "full", "memory"])
def test_what_ends_it_half_way_costs_the_texts_under_way_only(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException
) -> None:
    model.fails = {8: error}
    assert main(command(tmp_path / "out")) in (EXIT_FAILURE, 130)
    assert "the answers to 4 texts are kept in " in capsys.readouterr().err.splitlines()[-1]
    model.fails, model.asked = {}, []
    assert main(command(tmp_path / "out")) == EXIT_OK
    assert model.asked == [4, 5, 6, 7, 8, 9]
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["data"]["texts"] == 10


def test_where_nothing_can_be_kept_nothing_is_asked(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("medserl.evaluation.kept.open_private", full)
    assert main(command(tmp_path / "new/out")) == EXIT_FAILURE
    assert model.asked == [] and list(tmp_path.iterdir()) == []
    assert "No space left on device; make room" in capsys.readouterr().err.splitlines()[-1]
