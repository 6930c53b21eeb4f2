"""Ends a run when a part of it has died, with a sentence that says which, where verl would wait for ever.

verl's sender of new weights blocks in a socket until vLLM's worker takes them (verl 0.9.1,
vllm_rollout/bucketed_weight_transfer.py: ``self.socket.recv()`` without a limit), and the other ranks wait for that
one in a collective; a TransferQueue whose process is gone is waited for too. So a thread of the main process asks every
actor of the run whether it lives, and vLLM's whether their engines do. A busy actor answers late, which is no fault;
the call to one that has died fails at once.

The main thread then gets an exception: from its call to an actor that is dead or ended here, or from a signal, which
also wakes a thread that waits for something else. Where neither helps, the process ends.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

logger = logging.getLogger("medserl.watch")
PERIOD = 1.0  # seconds
LEAVE_BY_ITSELF = 10.0  # seconds until the main thread gets the signal
LAST_RESORT = 60.0  # seconds that it then has to end everything
RAY_GONE = 2.0  # both, where Ray itself has died, which nothing can be asked of any more
WAKE = signal.SIGUSR2
EXIT = 1
# While a run starts, verl ends helpers of its own on purpose; these stay as long as the run.
LASTING = ("WorkerDict", "server_")
# Passive stores: nobody calls them through Ray, so to end them would leave the main thread waiting for their answers.
STORES = ("TransferQueue", "Storage")


class PartLost(RuntimeError):
    """A part of the run has died."""


def engine_state(actor: Any) -> str | None:
    """Runs inside an actor: what is wrong with its vLLM engine (``vllm.v1.engine.async_llm.AsyncLLM``), if it has
    one."""
    engine = getattr(actor, "engine", None)
    return "its engine or one of its workers died" if getattr(engine, "errored", False) is True else None


class Watch:
    """Looks after the actors of a run and the processes of its own Ray.

    Args:
        own_ray: Name and liveness of each process of a Ray that is this run's own.
        abandon: Ends all other processes of the run, whatever they do: before this one ends as a last resort.
    """

    def __init__(self, own_ray: dict[str, Callable[[], bool]], abandon: Callable[[], None]) -> None:
        self.lost: str | None = None
        self._abandon = abandon
        self._own_ray = own_ray
        self._calls: dict[tuple[str, str], Any] = {}
        self._handles: dict[tuple[str, str], Any] = {}
        self._ready = False
        self._found = threading.Event()
        self._heard = threading.Event()
        self._main = threading.current_thread() is threading.main_thread()
        self._before = signal.signal(WAKE, self._wake) if self._main else None
        self._closing = threading.Event()
        self._closed = threading.Event()
        # Two threads: a Ray without its head answers no question for a minute.
        for work in (self._ask, self._act):
            threading.Thread(target=work, name=f"medserl-watch-{work.__name__}", daemon=True).start()

    def ready(self) -> None:
        """The run has all of its parts: from now on none may end."""
        self._ready = True

    def closing(self) -> None:
        """The run ends its parts itself: none is missed any more. Where one was, the last resort stays."""
        self._heard.set()
        self._closing.set()

    def close(self) -> None:
        """Everything has ended."""
        self.closing()
        self._closed.set()
        if self._main and threading.current_thread() is threading.main_thread():
            signal.signal(WAKE, self._before or signal.SIG_DFL)

    def cause(self) -> str | None:
        """What has died: waits a moment, because a call to a dead actor may fail before its death is found here."""
        if self._found.wait(4 * PERIOD):
            self._heard.set()
        return self.lost

    def _lose(self, what: str) -> None:
        if not self._closing.is_set() and self.lost is None:
            self.lost = f"{what}; the run cannot go on"
            logger.error("%s", self.lost)
            self._found.set()

    # ---------------------------------------------------------------- two threads

    def _ask(self) -> None:
        while self.lost is None and not self._closing.wait(PERIOD):
            try:
                self._call_new_actors()
                lost = self._answers()
            except Exception as error:
                logger.debug("the run's processes could not be checked: %r", error)
            else:
                if lost is not None:
                    self._lose(lost)

    def _act(self) -> None:
        while self.lost is None and not self._closing.wait(PERIOD):
            for name, alive in self._own_ray.items():
                if not alive():
                    self._lose(f"Ray's {name} died")
        if self.lost is None:
            return
        ray_is_gone = any(not alive() for alive in self._own_ray.values())
        if not ray_is_gone:
            # Whoever waits for one of them gets an exception. In a thread: Ray may not answer any more.
            threading.Thread(target=self._end_actors, daemon=True).start()
        if not self._heard.wait(RAY_GONE if ray_is_gone else LEAVE_BY_ITSELF) and self._main and not ray_is_gone:
            signal.pthread_kill(threading.main_thread().ident or 0, WAKE)
        if not self._closed.wait(RAY_GONE if ray_is_gone else LAST_RESORT):
            logger.error("the run cannot end in an orderly way; its processes are killed")
            self._abandon()
            logging.shutdown()
            os._exit(EXIT)

    def _wake(self, number: int, frame: FrameType | None) -> None:
        if self.lost is not None and not self._heard.is_set():
            raise PartLost(self.lost)

    def _end_actors(self) -> None:
        import ray

        for (_, name), handle in list(self._handles.items()):
            if not any(part in name for part in STORES):
                ray.kill(handle, no_restart=True)

    def _call_new_actors(self) -> None:
        import ray

        spaces = (ray.get_runtime_context().namespace, "transfer_queue")
        for named in ray.util.list_named_actors(all_namespaces=True):
            key = (named["namespace"], named["name"])
            if (
                key[0] not in spaces
                or key in self._handles
                or not (self._ready or any(part in key[1] for part in LASTING))
            ):
                continue
            try:
                self._handles[key] = ray.get_actor(key[1], namespace=key[0])
            except ValueError:
                continue  # it has ended between the two calls

    def _answers(self) -> str | None:
        import ray

        for key, handle in self._handles.items():
            call = self._calls.get(key)
            if call is None:
                self._calls[key] = handle.__ray_call__.remote(engine_state)
                continue
            if not ray.wait([call], timeout=0)[0]:
                continue
            complaint = None
            try:
                complaint = ray.get(call)
            except ray.exceptions.ActorUnavailableError:
                pass  # a network that was away for a moment
            except ray.exceptions.RayActorError as error:
                return f"{part_name(key[1])} died{_where(str(error))}"
            except ray.exceptions.RayError as error:
                logger.debug("%s could not be asked: %r", key[1], error)
            if complaint:
                return f"{part_name(key[1])}: {complaint}"
            self._calls[key] = handle.__ray_call__.remote(engine_state)
        return None


def part_name(actor: str) -> str:
    """What people call an actor of verl's: ``vllm_server_0_0``, ``xYzWorkerDict_0:1``."""
    if match := re.search(r"WorkerDict_(\d+):(\d+)$", actor):
        return f"Megatron worker {match[2]}" if match[1] == "0" else f"Megatron worker {match[1]}:{match[2]}"
    if match := re.search(r"server_(?:\w+_)?(\d+)_\d+$", actor):
        return f"vLLM (replica {match[1]})"
    return f"the process {actor}"


def _where(error: str) -> str:
    found = [f"{name} {match[1]}" for name in ("pid", "ip") if (match := re.search(rf"^\s*{name}: (\S+)", error, re.M))]
    return f" ({', '.join(found)})" if found else ""
