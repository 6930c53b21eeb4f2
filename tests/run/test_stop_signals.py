"""A process that is told to stop while it starts another one loses neither the order nor the process.

Each script runs in a process of its own: it is Python's own hooks that are filled, and signals that are sent.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.quick
# Sends itself a signal where one came in a test of the whole pipeline: after the fork, before Popen has returned. What
# a handler raises there is printed and dropped.
TOLD_WHILE_STARTING = """
import os, signal, subprocess, sys, time
from medserl.run.stop_signals import handled, held, leave, passed_on
number = signal.Signals[sys.argv[1]]
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), number))
SLEEPS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
"""


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    source = textwrap.dedent(TOLD_WHILE_STARTING) + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("options", ["preexec_fn=lambda: None", ""])
def test_a_signal_during_the_start_reaches_the_process(number: signal.Signals, options: str) -> None:
    found = run(
        f"""
        if not {options!r}:  # no hook is called: at the first moment at which Python runs any code
            signal.pthread_sigmask(signal.SIG_BLOCK, [number])
            os.kill(os.getpid(), number)
            real = subprocess.Popen
            def started(*a, **k):
                signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
                return real(*a, **k)
            subprocess.Popen = started
        with passed_on(SLEEPS, {options}) as process:
            print(process.wait())
        """,
        number.name,
    )
    assert found.stdout.split() == [str(-number)], found.stderr
    assert found.stderr == ""


def test_a_handler_that_leaves_leaves_after_the_start() -> None:
    found = run(
        """
        started = []
        try:
            with handled(leave):
                with held():
                    started.append(subprocess.Popen(SLEEPS, preexec_fn=lambda: None))
                print("went on")
        finally:
            for process in started:
                process.kill()
                print("ended", process.wait())
        """,
        "SIGTERM",
    )
    assert (found.returncode, found.stdout, found.stderr) == (128 + signal.SIGTERM, "ended -9\n", "")


def test_handlers_are_as_before_afterwards() -> None:
    found = run(
        """
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
        with passed_on([sys.executable, "-S", "-c", ""]) as process:
            process.wait()
        with held():
            pass
        print(before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)])
        """,
        "SIGTERM",
    )
    assert found.stdout == "True\n", found.stderr
