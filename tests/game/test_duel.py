"""Whole games with scripted players: every way that a game can go."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game.labels import ERROR_TYPES, Label, Mode
from medserl.game.play import (
    Game,
    GameRules,
    Reply,
    Role,
    assess_labelled,
    balance_labels,
    balance_modes,
    draw_error_type,
    play_game,
    training_trajectories,
)
from medserl.game.prompts import load_prompt_set
from medserl.game.records import LabelledNote, Note
from medserl.game.referee import Referee, Ruling, RulingKind, make_referee
from medserl.game.rewards import RewardConfig
from medserl.game.vcf import Reason

NOTE = Note(
    "n1",
    "A man presents with cough. He has type 2 diabetes controlled with metformin. There is no rash.",
)
GOOD = "sentence_id: 1\nnew_sentence: He has type 1 diabetes controlled with metformin."
EDITED = NOTE.text.replace("type 2", "type 1")
SAME = "sentence_id: 2\nnew_sentence: There is no rash."
LEAKY = "sentence_id: 2\nnew_sentence: There is INCORRECT no rash."
BROKEN = "I would change the second sentence."
RIGHT, WRONG, MUTE = 'final_answer: "INCORRECT"', 'final_answer: "CORRECT"', "It is INCORRECT."

Script = Callable[..., Any]


class FixedReferee(Referee):
    """Says what it was told to."""

    name: ClassVar[str] = "fixed"

    def __init__(self, kind: RulingKind) -> None:
        self.kind = kind
        self.seen: list[tuple[str, Mode, str]] = []

    def rule(self, note: Note, mode: Mode, modified: str) -> Ruling:
        self.seen.append((note.note_id, mode, modified))
        return Ruling(self.kind, "fixed")


def play(player: Any, mode: Mode = Mode.ERROR, referee: Referee | None = None, **rules: Any) -> Game:
    return asyncio.run(
        play_game(
            NOTE,
            mode,
            generate=player,
            prompts=load_prompt_set("clinical"),
            rules=GameRules(**rules),
            referee=referee or make_referee("instruction"),
        )
    )


def rewards(game: Game) -> list[tuple[str, float, bool]]:
    return [(t.role.value, round(t.reward, 6), t.trains) for t in game.trajectories]


# ------------------------------------------------------------------------------------------------ format


@pytest.mark.parametrize(
    ("edit", "answer", "expected"),
    [
        (GOOD, RIGHT, [-0.9, 1.1]),
        (GOOD, "**final_answer:** incorrect", [-0.9, 1.0]),
        (GOOD, "INCORRECT", [-0.9, 1.0]),
        (GOOD.replace("id: 1", "id: [1]"), RIGHT, [-1.0, 1.1]),
        (GOOD.replace("He", '"He') + '"', "final_answer: CORRECT", [1.0, -1.0]),
        (GOOD, f"{RIGHT}\n{WRONG}", [0.0, -1.0]),
    ],
)
def test_the_answer_earns_the_task_reward_and_the_strict_form_the_bonus(
    scripted: Script, edit: str, answer: str, expected: list[float]
) -> None:
    game = play(scripted([edit], [answer]))
    assert game.accepted == EDITED
    assert [reward for _, reward, _ in rewards(game)] == pytest.approx(expected)


def test_the_bonus_on_a_labelled_note() -> None:
    def score(reply: str, opened: bool = False) -> float:
        async def player(role: Role, messages: Any) -> Reply:
            return Reply(reply, thinking_open=opened)

        labelled = LabelledNote("n", NOTE.text, Label.INCORRECT)
        prompts = load_prompt_set("clinical")
        game = asyncio.run(assess_labelled(labelled, generate=player, prompts=prompts, rules=GameRules()))
        return game.trajectories[0].reward

    assert [score(RIGHT), score("INCORRECT"), score("final_answer: CORRECT")] == pytest.approx([1.1, 1.0, -1.0])
    assert score(RIGHT, opened=True) == -1.0  # it never left the reasoning that the prompt opened
    assert score(f"So it is.</think>\n{RIGHT}", opened=True) == pytest.approx(1.1)


def test_an_edit_inside_reasoning_that_the_prompt_opened_is_unparseable(scripted: Script) -> None:
    player = scripted([], [RIGHT])

    async def generate(role: Role, messages: Any) -> Reply:
        if role is Role.ASSESSOR:
            return await player(role, messages)  # type: ignore[no-any-return]
        return Reply(GOOD, thinking_open=True)

    game = play(generate)
    assert game.exhausted and {attempt.verdict.reason for attempt in game.attempts} == {Reason.UNPARSEABLE}
    assert not any(attempt.strict for attempt in game.attempts)


# ----------------------------------------------------------------------------------------------- attempts


@pytest.mark.parametrize("failures", [0, 1, 2])
def test_accepted_on_attempt(scripted: Script, failures: int) -> None:
    player = scripted([SAME] * failures + [GOOD], [RIGHT])
    game = play(player)
    assert len(game.attempts) == failures + 1
    assert [attempt.verdict.passed for attempt in game.attempts] == [False] * failures + [True]
    assert game.accepted == game.attempts[-1].modified == EDITED
    assert game.decisive and not game.exhausted
    assert [t.attempt for t in game.trajectories] == [*range(1, failures + 2), 0]
    assert rewards(game) == [("injector", 0.0, False)] * failures + [
        ("injector", -0.9, True),
        ("assessor", 1.1, True),
    ]


def test_no_more_attempts_than_allowed(scripted: Script) -> None:
    player = scripted([SAME, BROKEN, LEAKY, GOOD], [RIGHT])
    game = play(player)
    assert game.exhausted and not game.decisive
    assert [attempt.verdict.reason for attempt in game.attempts] == [
        Reason.IDENTICAL,
        Reason.UNPARSEABLE,
        Reason.LEAK,
    ]
    assert game.attempts[1].modified is None
    assert (game.accepted, game.ruling, game.assessor, game.score) == (None, None, None, None)
    assert player.conversations(Role.ASSESSOR) == []
    assert rewards(game) == [("injector", -0.5, True)] * 3
    assert [t.parsed for t in game.trajectories] == [True, False, True]
    assert [t.info["outcome"] for t in game.trajectories] == ["identical", "unparseable", "leak"]


def test_exhausted_attempts_can_be_dropped(scripted: Script) -> None:
    game = play(scripted([SAME], []), max_attempts=1, rewards=RewardConfig(exhausted=None))
    assert rewards(game) == [("injector", 0.0, False)]
    assert training_trajectories([game]) == []


def test_retried_attempts_can_be_punished(scripted: Script) -> None:
    game = play(scripted([BROKEN, GOOD], [WRONG]), rewards=RewardConfig(retried=-0.2))
    assert rewards(game) == [("injector", -0.2, True), ("injector", 1.1, True), ("assessor", -0.9, True)]


def test_thinking_is_stripped_before_anything_sees_it(scripted: Script) -> None:
    player = scripted([f"<think>{BROKEN} {SAME}</think>\n{GOOD}"], [f"<think>{WRONG}</think>{RIGHT}"])
    game = play(player)
    assert game.accepted == EDITED
    assert game.assessor is not None and game.assessor.answer is Label.INCORRECT


def test_the_note_format(scripted: Script) -> None:
    game = play(scripted([GOOD, f"generated_note:\n{EDITED}\n"], [RIGHT]), injector_format="note")
    assert [attempt.verdict.reason for attempt in game.attempts] == [Reason.UNPARSEABLE, None]
    assert game.accepted == EDITED


def test_the_phrase_format(scripted: Script) -> None:
    same, good = (f"old_phrase: type 2\nnew_phrase: {new}" for new in ("type 2", "type 1"))
    game = play(scripted([GOOD, same, good], [RIGHT]), injector_format="phrase")
    assert [attempt.verdict.reason for attempt in game.attempts] == [Reason.UNPARSEABLE, Reason.IDENTICAL, None]
    assert game.accepted == EDITED


# ------------------------------------------------------------------------------------------------ rulings


@pytest.mark.parametrize("kind", [RulingKind.VOID, RulingKind.LOSSY])
def test_an_undecided_game_trains_nothing(scripted: Script, kind: RulingKind) -> None:
    player = scripted([BROKEN, GOOD], [RIGHT])
    game = play(player, referee=FixedReferee(kind), rewards=RewardConfig(retried=-0.2, contradiction=-1.0))
    assert game.accepted == EDITED
    assert game.ruling == Ruling(kind, "fixed")
    assert not game.decisive and not game.exhausted
    assert rewards(game) == [("injector", 0.0, False)] * 2
    assert player.conversations(Role.ASSESSOR) == []


@pytest.mark.parametrize(
    ("mode", "kind", "answer", "injector", "assessor"),
    [
        (Mode.ERROR, RulingKind.ERROR, RIGHT, -0.9, 1.1),
        (Mode.ERROR, RulingKind.ERROR, WRONG, 1.1, -0.9),
        (Mode.BENIGN, RulingKind.BENIGN, WRONG, -0.9, 1.1),
        (Mode.BENIGN, RulingKind.BENIGN, RIGHT, 1.1, -0.9),
        (Mode.ERROR, RulingKind.BENIGN, WRONG, -1.9, 1.1),
        (Mode.ERROR, RulingKind.BENIGN, RIGHT, 0.1, -0.9),
        (Mode.BENIGN, RulingKind.ERROR, WRONG, 0.1, -0.9),
        (Mode.BENIGN, RulingKind.ERROR, MUTE, -1.0, -1.0),
        (Mode.ERROR, RulingKind.ERROR, MUTE, 0.0, -1.0),
    ],
)
def test_the_rulings_label_decides(
    scripted: Script, mode: Mode, kind: RulingKind, answer: str, injector: float, assessor: float
) -> None:
    referee = FixedReferee(kind)
    game = play(scripted([GOOD], [answer]), mode, referee)
    assert referee.seen == [("n1", mode, EDITED)]
    assert game.truth is game.ruling.label  # type: ignore[union-attr]
    assert game.contradiction == (kind.value != mode.value)
    assert rewards(game) == [("injector", injector, True), ("assessor", assessor, True)]
    score = game.score
    assert score is not None and score.assessor_task + score.injector_task == 0.0


def test_the_contradiction_penalty_is_a_switch(scripted: Script) -> None:
    rules = {"rewards": RewardConfig(contradiction=None)}
    game = play(scripted([GOOD], [WRONG]), Mode.BENIGN, FixedReferee(RulingKind.ERROR), **rules)
    assert game.contradiction
    assert rewards(game)[0] == ("injector", 1.1, True)


def test_an_assessor_without_an_answer(scripted: Script) -> None:
    game = play(scripted([GOOD], [MUTE]))
    assert game.assessor is not None and game.assessor.answer is None
    assert rewards(game) == [("injector", 0.0, True), ("assessor", -1.0, True)]
    assert [t.parsed for t in game.trajectories] == [True, False]


def test_a_second_referee_is_heard_but_does_not_decide(scripted: Script) -> None:
    game = asyncio.run(
        play_game(
            NOTE,
            Mode.ERROR,
            generate=scripted([GOOD], [RIGHT]),
            prompts=load_prompt_set("ward"),
            rules=GameRules(),
            referee=make_referee("instruction"),
            second_referee=FixedReferee(RulingKind.BENIGN),
        )
    )
    assert game.truth is Label.INCORRECT
    assert game.second_ruling == Ruling(RulingKind.BENIGN, "fixed")
    assert rewards(game)[1] == ("assessor", 1.1, True)


def test_an_asynchronous_referee_is_awaited(scripted: Script) -> None:
    class Slow(FixedReferee):
        name: ClassVar[str] = "slow"

        async def arule(self, note: Note, mode: Mode, modified: str) -> Ruling:
            await asyncio.sleep(0)
            return Ruling(RulingKind.BENIGN, "slow")

    game = play(scripted([GOOD], [WRONG]), referee=Slow(RulingKind.ERROR))
    assert game.ruling == Ruling(RulingKind.BENIGN, "slow")


# --------------------------------------------------------------------------------------------------- leak

SECRET = "zebra"


@pytest.mark.parametrize("prompt_set", ["clinical", "ward"])
@pytest.mark.parametrize("mode", list(Mode))
def test_nothing_of_the_injector_reaches_the_assessor(scripted: Script, prompt_set: str, mode: Mode) -> None:
    """The assessor's conversation is the same, byte for byte, as for the bare modified note."""
    thinking = f"<think>{SECRET}: I make an {mode.value} edit of sentence 1</think>"
    player = scripted([f"{thinking} {BROKEN}", f"{thinking}\n{GOOD}\n{SECRET}"], [RIGHT])
    prompts = load_prompt_set(prompt_set)
    game = asyncio.run(
        play_game(
            NOTE,
            mode,
            generate=player,
            prompts=prompts,
            rules=GameRules(),
            referee=make_referee("instruction"),
        )
    )
    (conversation,) = player.conversations(Role.ASSESSOR)
    assert conversation == prompts.assessor(EDITED)
    assert {message["role"] for message in conversation} <= {"system", "user"}
    text = "\n".join(message["content"] for message in conversation)
    assert text.count(EDITED) == 1
    assert NOTE.text not in text and "type 2" not in text
    assert SECRET not in text and "think" not in text and "benign" not in text.lower()
    assert game.trajectories[-1].messages == conversation


@pytest.mark.parametrize("prompt_set", ["clinical", "ward"])
def test_the_assessors_conversation_does_not_depend_on_the_mode(scripted: Script, prompt_set: str) -> None:
    conversations = []
    for mode in Mode:
        player = scripted([GOOD], [RIGHT])
        play_rules = GameRules()
        asyncio.run(
            play_game(
                NOTE,
                mode,
                generate=player,
                prompts=load_prompt_set(prompt_set),
                rules=play_rules,
                referee=FixedReferee(RulingKind.ERROR),
            )
        )
        conversations.append(player.conversations(Role.ASSESSOR))
    assert conversations[0] == conversations[1]


def test_each_conversation_is_its_own(scripted: Script) -> None:
    """A generator that writes into the messages it was given cannot reach the next conversation."""
    inner = scripted([SAME, GOOD], [RIGHT])

    async def greedy(role: Role, messages: list[dict[str, str]]) -> Reply:
        reply = await inner(role, [dict(message) for message in messages])
        messages.append({"role": "assistant", "content": reply.text})
        messages[0]["content"] += SECRET
        return reply

    game = play(greedy)
    for _, messages in inner.asked:
        assert SECRET not in str(messages) and "assistant" not in str(messages)
    assert all(SECRET not in str(t.messages) for t in game.trajectories)


# ----------------------------------------------------------------------------------------------- labelled


@pytest.mark.parametrize(("answer", "reward"), [(RIGHT, 1.1), (WRONG, -0.9), (MUTE, -1.0)])
def test_a_labelled_note_has_one_assessor_trajectory(scripted: Script, answer: str, reward: float) -> None:
    labelled = LabelledNote("gold", EDITED, Label.INCORRECT)
    prompts = load_prompt_set("clinical")
    player = scripted([], [answer])
    game = asyncio.run(assess_labelled(labelled, generate=player, prompts=prompts, rules=GameRules()))
    assert (game.note_id, game.mode, game.truth, game.attempts) == ("gold", None, Label.INCORRECT, ())
    assert rewards(game) == [("assessor", reward, True)]
    assert player.asked == [(Role.ASSESSOR, prompts.assessor(EDITED))]
    assert game.trajectories[0].info["mode"] == "labelled"
    assert not game.decisive and not game.exhausted


# ------------------------------------------------------------------------------------------------ the rest


def test_payloads_and_lengths_travel_with_the_replies(scripted: Script) -> None:
    game = play(scripted([GOOD], [RIGHT]))
    assert game.trajectories[0].reply is game.attempts[0].reply
    assert game.trajectories[0].reply.payload == {"ids": list(range(len(GOOD)))}
    assert game.trajectories[1].reply.tokens == len(RIGHT)


def test_info_keys_are_always_the_same(scripted: Script) -> None:
    games = [
        play(scripted([GOOD], [RIGHT])),
        play(scripted([SAME] * 3, [])),
        play(scripted([GOOD], []), referee=FixedReferee(RulingKind.VOID)),
        asyncio.run(
            assess_labelled(
                LabelledNote("g", EDITED, Label.CORRECT),
                generate=scripted([], [RIGHT]),
                prompts=load_prompt_set("ward"),
                rules=GameRules(),
            )
        ),
    ]
    keys = {tuple(t.info) for game in games for t in game.trajectories}
    assert len(keys) == 1


def test_a_failing_generator_is_not_swallowed() -> None:
    async def broken(role: Role, messages: list[dict[str, str]]) -> Reply:
        raise ConnectionError("the server is gone")

    with pytest.raises(ConnectionError, match="the server is gone"):
        play(broken)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_attempts": 0},
        {"injector_format": "diff"},
        {"max_word_edits": 0},
        {"min_jaccard": 1.0, "max_jaccard": 0.5},
    ],
)
def test_impossible_rules_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        GameRules(**bad)


OUTCOMES = st.sampled_from(["decisive", "exhausted", "void", "labelled"])


@given(st.lists(st.tuples(OUTCOMES, st.sampled_from(Mode)), max_size=40), st.integers())
def test_balancing_leaves_as_many_of_both_modes(plan: list[tuple[str, Mode]], seed: int) -> None:
    made = {
        "decisive": Game("n", Mode.BENIGN, accepted="x", truth=Label.CORRECT),
        "exhausted": Game("n", Mode.BENIGN),
        "void": Game("n", Mode.BENIGN, accepted="x", ruling=Ruling(RulingKind.VOID)),
    }
    games = [
        Game("n", None, accepted="x", truth=Label.CORRECT) if kind == "labelled" else replace(made[kind], mode=mode)
        for kind, mode in plan
    ]
    dropped = balance_modes(games, seed)
    assert dropped == balance_modes(games, seed)
    assert all(games[i].decisive for i in dropped)
    kept = [game.mode for i, game in enumerate(games) if game.decisive and i not in dropped]
    before = [game.mode for game in games if game.decisive]
    assert kept.count(Mode.BENIGN) == kept.count(Mode.ERROR)
    assert kept.count(Mode.BENIGN) == min(before.count(Mode.BENIGN), before.count(Mode.ERROR))


@given(st.lists(st.tuples(OUTCOMES, st.sampled_from(Label)), max_size=40), st.sets(st.integers(0, 39)), st.integers())
def test_labels_balance_among_the_games_that_are_left(
    plan: list[tuple[str, Label]], dropped: set[int], seed: int
) -> None:
    kinds: dict[str, dict[str, Any]] = {
        "decisive": {"mode": Mode.BENIGN},
        "labelled": {"mode": None},
        "exhausted": {"mode": Mode.BENIGN, "truth": None},
        "void": {"mode": Mode.ERROR, "truth": None},
    }
    games = [Game("n", **{"truth": label, **kinds[kind]}) for kind, label in plan]
    left_out = balance_labels(games, dropped, seed)
    assert left_out == balance_labels(games, dropped, seed)
    assert all(games[i].decisive and i not in dropped for i in left_out)
    before = [game.truth for i, game in enumerate(games) if game.decisive and i not in dropped]
    kept = [game.truth for i, game in enumerate(games) if game.decisive and i not in dropped | left_out]
    least = min(before.count(label) for label in Label)
    if least == 0:
        assert not left_out
    else:
        assert [kept.count(label) for label in Label] == [least, least]


def test_which_games_are_left_out_depends_on_the_seed() -> None:
    games = [Game("n", Mode.BENIGN, accepted="x", truth=Label.CORRECT)] * 20
    games += [Game("n", Mode.ERROR, accepted="x", truth=Label.CORRECT)] * 10
    assert len({frozenset(balance_modes(games, seed)) for seed in range(5)}) > 1


# ------------------------------------------------------------------------------------------- types of errors


@given(st.integers(0, 10**6), st.text(max_size=8), st.lists(st.sampled_from(ERROR_TYPES), min_size=1, unique=True))
def test_the_type_of_error_is_drawn_by_seed_and_note_alone(seed: int, note_id: str, types: list[str]) -> None:
    drawn = draw_error_type(types, seed, note_id)
    assert drawn in types
    assert drawn == draw_error_type(types[::-1], seed, note_id)
    assert draw_error_type(None, seed, note_id) is draw_error_type([], seed, note_id) is None


def test_all_types_of_errors_are_drawn_about_equally_often() -> None:
    drawn = [draw_error_type(ERROR_TYPES, 1, f"note {number}") for number in range(1000)]
    assert all(150 <= drawn.count(name) <= 250 for name in ERROR_TYPES)


@pytest.mark.parametrize("mode", list(Mode))
def test_a_type_of_error_changes_the_injectors_prompt_and_is_recorded(scripted: Callable[..., Any], mode: Mode) -> None:
    prompts = load_prompt_set("clinical")
    player = scripted([GOOD], [RIGHT])
    game = asyncio.run(
        play_game(
            NOTE, mode, generate=player, prompts=prompts, rules=GameRules(),
            referee=make_referee("instruction"), error_type="pharmacotherapy",
        )
    )  # fmt: skip
    asked = "pharmacotherapy" if mode is Mode.ERROR else None
    assert game.error_type == asked
    assert player.conversations(Role.INJECTOR) == [prompts.injector(NOTE.text, mode, "edit", asked)]
    assert player.conversations(Role.ASSESSOR) == [prompts.assessor(EDITED)]
    assert game.trajectories[0].messages == player.conversations(Role.INJECTOR)[0]
