"""The port on which a run's worker processes meet lies where the system gives none away by itself.

verl 0.9.1 (verl/single_controller/ray/base.py:91, get_master_addr_port) asks the system for a free port, closes it, and
hands it to the workers, whose first listens on it 20 to 30 s later, after its imports. In between the system may give
the same port to any outgoing connection, of which a starting Ray makes hundreds; the run ends with "address already
in use". verl's worker group takes a range to choose from instead, which its trainer
(verl/trainer/ppo/v1/trainer_base.py:310) does not set. Loaded by medserl/training/verl_plugin.py;
tests/training/test_rendezvous.py fails when verl changes that place.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path
from types import ModuleType

FIRST, LAST = 32000, 32767
"""Above the ports of Ray's workers (10002 to 19999) and heads (medserl/slurm/ray_steps.py), below Linux's own."""

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def port_range(outgoing: Path = OUTGOING) -> list[int] | None:
    """Where to look for a port: from a random first one, so that runs which start together do not meet, to the last.

    Returns:
        ``[first, behind the last]``; ``None`` where this system gives these ports to outgoing connections, too.
    """
    try:
        lowest = int(outgoing.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None
    if lowest <= LAST:
        return None
    return [random.SystemRandom().randrange(FIRST, LAST - 100), LAST + 1]


def meet_outside_of_outgoing_ports(module: ModuleType) -> None:
    """verl.trainer.ppo.v1.trainer_base: ``RayWorkerGroup`` as that module knows it."""
    if (ports := port_range()) is not None:
        module.RayWorkerGroup = functools.partial(  # type: ignore[attr-defined]
            module.RayWorkerGroup, master_port_range=ports
        )
