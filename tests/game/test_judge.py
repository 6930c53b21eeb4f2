"""The judge's pure part: what is asked, how replies are read, what a decision is, what a failure becomes."""

import asyncio
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserl.errors import ConfigError
from medserl.game import GameRules, Mode, Note, RulingKind, load_prompt_set, play_game, round_metrics
from medserl.game.play import Role
from medserl.game.prompts import Message
from medserl.game.referee import FAILED, Judge, JudgeFailed, Referee, referee_names
from medserl.game.referee.judge import VERDICTS, changed_sentence, decide, parse_verdict
from tests.game.conftest import ScriptedPlayer

NOTE = Note("n", "He is 54 years old. He has type 2 diabetes. Metformin 500 mg twice daily was started today.")
EDITED = NOTE.text.replace("type 2", "type 1")


class Server:
    """Stands where the model stands: answers with its replies and keeps what it was asked."""

    def __init__(self, *replies: str, failure: str | None = None) -> None:
        self.replies, self.failure = replies, failure
        self.asked: list[tuple[list[Message], int]] = []

    async def __call__(self, messages: list[Message], seed: int) -> Sequence[str]:
        self.asked.append((messages, seed))
        if self.failure is not None:
            raise JudgeFailed(self.failure)
        return self.replies


def rule(
    server: Server, modified: str = EDITED, mode: Mode = Mode.BENIGN, prompts: str = "clinical"
) -> tuple[str, str]:
    ruling = asyncio.run(Judge(server, load_prompt_set(prompts)).arule(NOTE, mode, modified))
    return ruling.kind.value, ruling.reason


@pytest.mark.parametrize(
    ("replies", "expected"),
    [
        (['verdict: "ERROR"'], ("error", "judge")),
        (['verdict: "BENIGN"'], ("benign", "judge")),
        (['verdict: "UNDECIDABLE"'], ("void", "judge_undecidable")),
        (["It is an ERROR."], ("void", "judge_unparseable")),
        ([""], ("void", "judge_unparseable")),
        ([], ("void", "judge_unparseable")),
        (['verdict: "ERROR"', 'verdict: "ERROR"', 'verdict: "BENIGN"'], ("error", "judge")),
        (['verdict: "ERROR"', 'verdict: "BENIGN"'], ("void", "judge_split")),
        (['verdict: "ERROR"', "?", "?"], ("void", "judge_split")),
        (['verdict: "UNDECIDABLE"', 'verdict: "UNDECIDABLE"', "?"], ("void", "judge_undecidable")),
    ],
)
def test_replies_become_rulings(replies: list[str], expected: tuple[str, str]) -> None:
    assert rule(Server(*replies)) == expected


def test_the_last_verdict_outside_the_reasoning_counts() -> None:
    assert parse_verdict('<think>verdict: "ERROR"</think>verdict: "BENIGN"') == "BENIGN"
    assert parse_verdict('verdict: "BENIGN" no: verdict: "ERROR"') == "ERROR"
    assert parse_verdict('<think>verdict: "ERROR"') is None
    for text in ("verdict: ERROR", 'verdict: "error"', 'Verdict: "ERROR"', 'verdict: "LOSSY"', 'final_answer: "ERROR"'):
        assert parse_verdict(text) is None


@given(st.text(max_size=80), st.sampled_from(sorted(VERDICTS)))
def test_a_closing_verdict_is_always_read(reasoning: str, verdict: str) -> None:
    assert parse_verdict(f'<think>{reasoning}</think>\nverdict: "{verdict}"') == verdict


@given(st.lists(st.sampled_from([*VERDICTS, None]), max_size=9))
def test_a_decision_needs_more_than_half_of_the_votes_whatever_their_order(votes: list[str | None]) -> None:
    ruling = decide(votes)
    assert ruling == decide(votes[::-1])
    for verdict, kind in (("ERROR", RulingKind.ERROR), ("BENIGN", RulingKind.BENIGN)):
        assert (ruling.kind is kind) == (2 * votes.count(verdict) > len(votes))


def test_the_question_holds_note_and_both_sentences_but_neither_mode_nor_gold() -> None:
    gold = Note("n", NOTE.text, error_text="GOLDTEXT", error_type="GOLDTYPE", error_sentence="GOLDSENTENCE")
    for name in ("clinical", "ward"):
        questions = []
        for mode in Mode:
            server = Server()
            asyncio.run(Judge(server, load_prompt_set(name)).arule(gold, mode, EDITED))
            questions.append(server.asked)
        assert questions[0] == questions[1], "the mode shows"
        text = "\n".join(message["content"] for message in questions[0][0][0])
        for part in (NOTE.text, "He has type 2 diabetes.", "He has type 1 diabetes."):
            assert part in text
        assert "GOLD" not in text


def test_the_same_edit_is_asked_with_the_same_seed() -> None:
    server = Server('verdict: "ERROR"')
    for modified in (EDITED, EDITED, NOTE.text.replace("54", "55")):
        rule(server, modified)
    seeds = [seed for _, seed in server.asked]
    assert seeds[0] == seeds[1] != seeds[2]
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize("modified", [NOTE.text, EDITED.replace("500", "50"), EDITED + " He left.", ""])
def test_only_one_changed_sentence_can_be_compared(modified: str) -> None:
    server = Server('verdict: "ERROR"')
    assert changed_sentence(NOTE.text, modified) is None
    assert rule(server, modified) == ("void", "not_one_sentence")
    assert not server.asked


def test_a_failure_is_a_void_ruling_that_says_so() -> None:
    ruling = asyncio.run(
        Judge(Server(failure="http://x: down"), load_prompt_set("ward")).arule(NOTE, Mode.ERROR, EDITED)
    )
    assert (ruling.kind, ruling.reason, ruling.detail) == (RulingKind.VOID, FAILED, "http://x: down")
    assert ruling.failed and ruling.label is None


def test_a_bug_is_no_failure() -> None:
    async def broken(messages: list[Message], seed: int) -> Sequence[str]:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        asyncio.run(Judge(broken, load_prompt_set("ward")).arule(NOTE, Mode.ERROR, EDITED))


def test_a_judge_has_to_be_waited_for_and_keeps_the_referees_interface() -> None:
    judge = Judge(Server(), load_prompt_set("ward"))
    assert isinstance(judge, Referee) and judge.name == "judge"
    with pytest.raises(NotImplementedError, match="arule"):
        judge.rule(NOTE, Mode.ERROR, EDITED)
    assert "judge" not in referee_names() or "medserl.serving.judge" in __import__("sys").modules


@pytest.mark.parametrize(
    ("server", "void", "failed"),
    [
        (Server('verdict: "UNDECIDABLE"'), 1.0, 0.0),
        (Server(failure="down"), 1.0, 1.0),
        (Server('verdict: "ERROR"'), 0.0, 0.0),
    ],
)
def test_games_are_void_and_counted(
    scripted: Callable[..., ScriptedPlayer], server: Server, void: float, failed: float
) -> None:
    """Undecidable or failed: no assessor turn, nothing trains, and the metrics tell the two apart."""
    player = scripted(["sentence_id: 1\nnew_sentence: He has type 1 diabetes."], ['final_answer: "INCORRECT"'])
    prompts = load_prompt_set("clinical")
    game = asyncio.run(
        play_game(
            NOTE,
            Mode.ERROR,
            generate=player,
            prompts=prompts,
            rules=GameRules(min_jaccard=0.5),
            referee=Judge(server, prompts),
        )
    )
    metrics = round_metrics([game])
    assert (metrics["referee/void_rate"], metrics["referee/failed_rate"]) == (void, failed)
    assert bool(player.conversations(Role.ASSESSOR)) == (void == 0.0)
    assert [t.trains for t in game.trajectories] == ([False] if void else [True, True])


def test_a_set_without_the_judges_prompt_is_refused(tmp_path: object) -> None:
    from dataclasses import replace

    prompts = load_prompt_set("ward")
    without = replace(prompts, _sections={k: v for k, v in prompts._sections.items() if k != "judge"})
    with pytest.raises(ConfigError, match=r"judge\.txt"):
        without.judge("A.", "A.", "B.")
