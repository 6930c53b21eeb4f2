"""Finds instructions that the processor advertises but cannot run.

Some virtual machines advertise AMX in ``cpuid`` and end every process that uses it with SIGILL.
oneDNN chooses its kernels by what is advertised, so the first bf16 matrix product kills the
process. oneDNN can be capped (``ONEDNN_MAX_CPU_ISA``), but only by the environment and only before
its first use. So the product is tried in a child process, and where the child dies, the highest cap
that survives is found.

The child imports torch once (seconds) and forks one grandchild per cap (milliseconds). Its answer
is kept in a cache file per host, processor, kernel and torch version. This module does not import
torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medserl.files import PRIVATE_FOLDER, read_json, write_atomically

# Highest first. Values of oneDNN's run-time control (its documentation, "CPU Dispatcher Control").
# None: no cap, oneDNN chooses by itself.
ISA_LADDER: tuple[str | None, ...] = (None, "AVX512_CORE_BF16", "AVX512_CORE", "AVX2", "SSE41")

# What the trainer and vLLM do with bf16: linear layers forward and backward, thin and square, and
# attention, which goes to oneDNN's micro-kernels by another road. Sizes are past the thresholds
# below which torch uses its own loops.
_CHILD = r"""
import json, os, resource, sys
import torch
import torch.nn.functional as F

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # an expected crash leaves no core file

def work():
    for dtype in (torch.bfloat16, torch.float32):
        for rows, inner, columns in ((1, 256, 512), (64, 64, 64), (256, 128, 512)):
            x = torch.ones(rows, inner, dtype=dtype, requires_grad=True)
            w = torch.ones(columns, inner, dtype=dtype, requires_grad=True)
            F.linear(x, w).sum().backward()
        q = torch.ones(1, 4, 128, 32, dtype=dtype, requires_grad=True)
        F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()

def survives(isa):
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
        os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
        if isa is not None:
            os.environ["ONEDNN_MAX_CPU_ISA"] = isa
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    return os.waitstatus_to_exitcode(status)

for isa in json.loads(sys.argv[1]):
    code = survives(isa)
    print(json.dumps([isa, code]), flush=True)
    if code == 0:
        break
"""


@dataclass(frozen=True)
class ProbeResult:
    """What the child found.

    ``onednn_max_cpu_isa``: the cap that oneDNN needs, None where it needs none.
    ``died_with``: name of the signal that ended the uncapped product ("SIGILL"), None where it lived.
    """

    onednn_max_cpu_isa: str | None = None
    died_with: str | None = None


class ProbeError(RuntimeError):
    """The probe gave no answer: torch cannot be imported, or no cap lets the products through."""


class RunningProbe:
    """A probe that runs in a child process while the caller does something else."""

    def __init__(self, process: subprocess.Popen[str] | None, result: ProbeResult | None, key: str) -> None:
        self._process = process
        self._result = result
        self._key = key

    def collect(self, timeout: float = 180.0) -> ProbeResult:
        """Waits for the child, stores its answer in the cache and returns it.

        Raises ProbeError where the child gave no answer within ``timeout`` seconds or none at all.
        """
        if self._result is not None:
            return self._result
        assert self._process is not None
        try:
            out, err = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.cancel()
            raise ProbeError(f"the processor probe gave no answer within {timeout:.0f} s") from None
        self._result = _read_answer(out, err)
        _store(self._key, self._result)
        return self._result

    def cancel(self) -> None:
        """Ends the child, if it still runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def start_probe(*, use_cache: bool = True) -> RunningProbe:
    """Starts the child and returns at once; nothing is started where the cache knows the answer."""
    key = cache_key()
    if use_cache and (known := _load(key)) is not None:
        return RunningProbe(None, known, key)
    environment = {k: v for k, v in os.environ.items() if k not in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")}
    # One thread: the products are tiny, and a pool that was started before a fork hangs in the fork.
    environment.update(OMP_NUM_THREADS="1", CUDA_VISIBLE_DEVICES="")
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, json.dumps(ISA_LADDER)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    return RunningProbe(process, None, key)


def probe(*, use_cache: bool = True, timeout: float = 180.0) -> ProbeResult:
    """`start_probe` and `RunningProbe.collect` in one."""
    return start_probe(use_cache=use_cache).collect(timeout)


def _read_answer(out: str, err: str) -> ProbeResult:
    answers: list[tuple[str | None, int]] = [tuple(json.loads(line)) for line in out.splitlines()]
    if not answers:
        raise ProbeError(f"the processor probe could not run torch: {_last_line(err)}")
    isa, code = answers[-1]
    if code != 0:
        raise ProbeError(f"bf16 matrix products fail even with ONEDNN_MAX_CPU_ISA={isa}: {_last_line(err)}")
    first = answers[0][1]
    return ProbeResult(isa, signal.Signals(-first).name if first < 0 else None)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no message"


# --- the cache -------------------------------------------------------------------------------------


def cache_path() -> Path:
    """``$XDG_CACHE_HOME/medserl/cpu_probe.json``, by default under ``~/.cache``; without a home a temporary folder of
    this user id's own."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    home = Path(os.path.expanduser("~"))
    if os.path.isabs(base):
        root = Path(base)
    elif home.is_absolute():
        root = home / ".cache"
    else:
        root = Path(tempfile.gettempdir()) / f"medserl-cache-{os.getuid()}"
    return root / "medserl" / "cpu_probe.json"


def cache_key() -> str:
    """Digest of what the answer depends on: host, kernel, processor, torch, and the probe itself."""
    try:
        torch_version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        raise ProbeError("torch is not installed") from None
    parts = (platform.node(), platform.release(), _processor(), torch_version, _CHILD)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _processor() -> str:
    """Model, revision and advertised flags of the first processor."""
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags")
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    lines = (line.split(":", 1) for line in text.split("\n\n", 1)[0].splitlines() if ":" in line)
    return "\n".join(f"{name.strip()}={value.strip()}" for name, value in lines if name.strip() in wanted)


def _read_cache() -> dict[str, Any]:
    try:
        content = read_json(cache_path())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _load(key: str) -> ProbeResult | None:
    entry = _read_cache().get(key)
    if not isinstance(entry, dict) or entry.keys() != asdict(ProbeResult()).keys():
        return None
    if entry["onednn_max_cpu_isa"] not in ISA_LADDER:
        return None
    return ProbeResult(**entry)


def _store(key: str, result: ProbeResult) -> None:
    """Beside the file, then renamed; a cache that cannot be written is no error."""
    path = cache_path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        write_atomically(path, json.dumps({**_read_cache(), key: asdict(result)}, indent=1))
