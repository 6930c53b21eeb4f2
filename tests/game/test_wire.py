"""Games cross processes as text: whatever was played comes back, and whatever is no game is refused."""

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medserl.game import (
    Game,
    GameRules,
    Label,
    LabelledNote,
    Mode,
    Note,
    Reply,
    Ruling,
    assess_labelled,
    load_prompt_set,
    make_referee,
    play_game,
)
from medserl.game.play import AssessorTurn, Attempt, Trajectory
from medserl.game.rewards import GameScore
from medserl.game.vcf import Reason, VcfVerdict
from medserl.game.wire import WireError, decode_game, encode_game

NOTE = Note("n1", "He has a cough. He takes aspirin 81 mg daily. He denies fever.")
EDIT = "sentence_id: 1\nnew_sentence: He takes aspirin 18 mg daily."
SECRET = "Weißkittel ☤"

TEXTS = st.text() | st.text(st.characters(min_codepoint=0xD800, max_codepoint=0xDBFF), max_size=3)  # lone surrogates
REPLIES = st.builds(Reply, TEXTS, st.none(), st.none() | st.integers(0, 9999), st.none() | st.integers(0, 9999))
NUMBERS = st.floats(allow_nan=False)  # a NaN comes back too, but is not equal to itself
FINITE = st.floats(allow_nan=False, allow_infinity=False)
COUNTS = st.none() | st.integers(0, 999)
VERDICTS = st.builds(
    VcfVerdict, st.booleans(), st.none() | st.sampled_from(Reason), COUNTS, st.none() | NUMBERS, COUNTS, COUNTS
)
GAMES = st.builds(
    Game,
    TEXTS,
    st.none() | st.sampled_from(Mode),
    attempts=st.lists(st.builds(Attempt, REPLIES, st.none() | TEXTS, VERDICTS), max_size=3).map(tuple),
    accepted=st.none() | TEXTS,
    ruling=st.none() | st.from_type(Ruling),
    second_ruling=st.none() | st.from_type(Ruling),
    truth=st.none() | st.sampled_from(Label),
    assessor=st.none() | st.builds(AssessorTurn, REPLIES, st.none() | st.sampled_from(Label)),
    score=st.none() | st.builds(GameScore, FINITE, FINITE, FINITE, FINITE),
    trajectories=st.lists(
        st.builds(
            Trajectory,
            reply=REPLIES,
            reward=NUMBERS,
            messages=st.lists(st.dictionaries(TEXTS, TEXTS, max_size=2), max_size=2),
            info=st.dictionaries(TEXTS, NUMBERS | TEXTS, max_size=3),
        ),
        max_size=3,
    ).map(tuple),
    error_type=st.none() | TEXTS,
)


def played(scripted: Callable[..., Any], injector: list[str], assessor: list[str]) -> Game:
    return asyncio.run(
        play_game(
            NOTE,
            Mode.ERROR,
            generate=scripted(injector, assessor),
            prompts=load_prompt_set("clinical"),
            rules=GameRules(),
            referee=make_referee("instruction"),
        )
    )


def without_payloads(game: Game) -> Game:
    def bare[T: (Attempt, AssessorTurn, Trajectory)](part: T) -> T:
        return replace(part, reply=replace(part.reply, payload=None))

    return replace(
        game,
        attempts=tuple(map(bare, game.attempts)),
        assessor=None if game.assessor is None else bare(game.assessor),
        trajectories=tuple(map(bare, game.trajectories)),
    )


def test_played_games_come_back(scripted: Callable[..., Any]) -> None:
    answer = f'{SECRET}\nfinal_answer: "INCORRECT"'
    labelled = assess_labelled(
        LabelledNote("n2", NOTE.text, Label.CORRECT),
        generate=scripted([], [answer]),
        prompts=load_prompt_set("clinical"),
        rules=GameRules(),
    )
    for game in (
        played(scripted, ["nonsense", EDIT], [answer]),
        played(scripted, ["nonsense"] * 3, []),
        asyncio.run(labelled),
    ):
        assert game.trajectories[0].reply.payload is not None
        assert decode_game(encode_game(game)) == without_payloads(game)


@settings(max_examples=300)
@given(GAMES)
def test_any_game_comes_back(game: Game) -> None:
    record = encode_game(game)
    assert record.isascii() and "\n" not in record
    assert decode_game(record) == without_payloads(game)


@given(st.text() | st.binary() | st.none())
def test_garbage_is_refused(record: Any) -> None:
    with pytest.raises(WireError):
        decode_game(record)


@pytest.mark.parametrize(
    "record",
    ["[" * 100_000, "null", "{}", "[]", "1", '{"note_id": "a"}', pickle.dumps({"note_id": "a"})],
    ids=["deep", "null", "empty", "list", "number", "fields missing", "pickle"],
)
def test_what_only_looks_like_a_record_is_refused(record: Any) -> None:
    with pytest.raises(WireError):
        decode_game(record)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a JSON value with every key in it."""
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def test_a_value_of_another_type_is_refused_wherever_it_stands_and_not_repeated(scripted: Callable[..., Any]) -> None:
    record = encode_game(played(scripted, ["nonsense", EDIT], [f'{SECRET}\nfinal_answer: "INCORRECT"']))
    count = len(list(places(json.loads(record))))
    assert count > 100
    for index in range(count):
        value = json.loads(record)
        container, key = list(places(value))[index]
        container[key] = {SECRET: [SECRET]} if not isinstance(container[key], dict) else [SECRET]
        with pytest.raises(WireError) as caught:
            decode_game(json.dumps(value))
        assert SECRET not in str(caught.value) and "aspirin" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("mode", "cruel", "game.mode should be a Mode, not a str"), ("note_id", None, "game.note_id should be a str"),
     ("attempts", "x", "game.attempts should be a list"), ("truth", True, "game.truth should be a Label")],
)  # fmt: skip
def test_the_sentence_names_the_place(scripted: Callable[..., Any], field: str, value: Any, said: str) -> None:
    record = json.loads(encode_game(played(scripted, ["nonsense"] * 3, [])))
    with pytest.raises(WireError, match=said):
        decode_game(json.dumps({**record, field: value}))


def test_fields_of_another_version_are_refused(scripted: Callable[..., Any]) -> None:
    record = json.loads(encode_game(played(scripted, ["nonsense"] * 3, [])))
    with pytest.raises(WireError, match="game has 1 fields that Game does not know"):
        decode_game(json.dumps({**record, SECRET: 1}))
    del record["attempts"][0]["verdict"]
    with pytest.raises(WireError, match=r"game.attempts\[0\] has no verdict"):
        decode_game(json.dumps(record))


def test_a_thing_without_a_form_is_refused_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="a game holds a set"):
        encode_game(Game("a", None, accepted={1}))  # type: ignore[arg-type]
