"""A lost part ends the run: the main thread gets an exception whatever it waits for, or the process ends."""

import subprocess
import sys
import threading
import time

import pytest

from medserl.run import watch
from medserl.run.watch import PartLost, Watch


class Told(Watch):
    """A watch that is told what its questions to Ray would have found."""

    answer: str | None = None
    ended = False

    def _call_new_actors(self) -> None:
        pass

    def _answers(self) -> str | None:
        return self.answer

    def _end_actors(self) -> None:
        self.ended = True


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    monkeypatch.setattr(watch, "PERIOD", 0.02)
    monkeypatch.setattr(watch, "LEAVE_BY_ITSELF", 0.2)
    return Told({}, lambda: pytest.fail("the last resort was not needed"))


def test_a_main_thread_that_waits_for_ever_is_woken(told: Told) -> None:
    told.answer = "vLLM (replica 0) died"
    try:
        with pytest.raises(PartLost, match=r"vLLM \(replica 0\) died; the run cannot go on"):
            threading.Event().wait(60)
        assert told.ended, "whoever waits for an actor gets an exception from it"
    finally:
        told.close()


def test_one_that_has_noticed_by_itself_is_left_alone(told: Told) -> None:
    told.answer = "Megatron worker 1 died"
    assert told.cause() == "Megatron worker 1 died; the run cannot go on"
    time.sleep(0.5)  # no exception comes from the signal
    told.close()


def test_a_run_that_ends_its_parts_misses_none(told: Told) -> None:
    told.closing()
    told.answer = "vLLM (replica 0) died"
    time.sleep(0.1)
    assert told.lost is None
    told.close()


def test_a_question_that_fails_does_not_end_the_looking(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RuntimeError("Ray is busy")

    monkeypatch.setattr(told, "_call_new_actors", fails)
    time.sleep(0.1)
    monkeypatch.undo()
    assert told.lost is None
    told.answer = "it died"
    assert told.cause() == "it died; the run cannot go on"
    told.close()


@pytest.mark.parametrize("ray_died", [True, False])
def test_where_no_exception_helps_the_process_ends(ray_died: bool) -> None:
    """The main thread here never lets go: it takes every exception and waits again."""
    code = f"""
import threading
from medserl.run import watch
from medserl.run.watch import Watch
watch.PERIOD = watch.LEAVE_BY_ITSELF = watch.LAST_RESORT = watch.RAY_GONE = 0.1
class Told(Watch):
    _call_new_actors = _end_actors = lambda self: None
    _answers = lambda self: None if {ray_died} else "it died"
Told({{"raylet": lambda: False}} if {ray_died} else {{}}, lambda: print("the others are ended", flush=True))
while True:
    try:
        threading.Event().wait(60)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "the others are ended"
    assert ("PartLost" in done.stdout) == (not ray_died)
    assert ("Ray's raylet died" if ray_died else "it died") in done.stderr
