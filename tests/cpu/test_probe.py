"""The processor probe: what it concludes from the child, and what it remembers."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from medserl.cpu import probe as module
from medserl.cpu.probe import ProbeError, ProbeResult, cache_path, probe, start_probe

# The real child's shape, with a product that dies by SIGILL unless oneDNN is capped at one of {caps}.
FAULTY = """
import json, os, signal, sys
def survives(isa):
    if (pid := os.fork()) == 0:
        if isa not in {caps!r}:
            os.kill(os.getpid(), signal.{signal})
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
for isa in json.loads(sys.argv[1]):
    code = survives(isa)
    print(json.dumps([isa, code]), flush=True)
    if code == 0:
        break
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "medserl" / "cpu_probe.json"


def use_child(monkeypatch: pytest.MonkeyPatch, caps: list[str | None], sign: str = "SIGILL") -> None:
    monkeypatch.setattr(module, "_CHILD", FAULTY.format(caps=caps, signal=sign))


@pytest.mark.parametrize(
    ("caps", "wanted"),
    [
        ([None], ProbeResult(None, None)),
        (["AVX512_CORE_BF16", "AVX2"], ProbeResult("AVX512_CORE_BF16", "SIGILL")),
        (["AVX2", "SSE41"], ProbeResult("AVX2", "SIGILL")),
    ],
)
def test_highest_cap_that_survives(
    monkeypatch: pytest.MonkeyPatch, caps: list[str | None], wanted: ProbeResult
) -> None:
    use_child(monkeypatch, caps)
    assert probe() == wanted


def test_names_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    use_child(monkeypatch, ["AVX2"], "SIGSEGV")
    assert probe().died_with == "SIGSEGV"


def test_no_cap_helps(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    use_child(monkeypatch, [])
    with pytest.raises(ProbeError, match="ONEDNN_MAX_CPU_ISA=SSE41"):
        probe()
    assert not cache.exists()


def test_torch_cannot_be_imported(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(module, "_CHILD", "import a_torch_that_is_not_there")
    with pytest.raises(ProbeError, match="a_torch_that_is_not_there"):
        probe()
    assert not cache.exists()


def test_child_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHILD", "import time; time.sleep(60)")
    running = start_probe()
    with pytest.raises(ProbeError, match="no answer"):
        running.collect(timeout=0.2)
    assert running._process is not None and running._process.returncode is not None


def test_answer_is_remembered_for_this_processor_and_torch(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    use_child(monkeypatch, ["AVX2"])
    assert probe().onednn_max_cpu_isa == "AVX2"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600

    monkeypatch.setattr(module.subprocess, "Popen", lambda *_, **__: pytest.fail("a child was started"))
    assert start_probe().collect() == ProbeResult("AVX2", "SIGILL")
    monkeypatch.setattr(module, "_processor", lambda: "another processor")
    with pytest.raises(BaseException, match="a child was started"):
        start_probe()


def test_several_machines_share_the_file(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    use_child(monkeypatch, ["AVX2"])
    for name in ("one", "two"):
        monkeypatch.setattr(module, "_processor", lambda name=name: name)
        probe()
    assert len(json.loads(cache.read_text())) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"%s": 3}', '{"%s": {"onednn_max_cpu_isa": "X86_64_V9"}}'])
def test_damaged_cache_is_ignored(monkeypatch: pytest.MonkeyPatch, cache: Path, content: str) -> None:
    use_child(monkeypatch, ["AVX2"])
    cache.parent.mkdir(parents=True)
    cache.write_text(content.replace("%s", module.cache_key()))
    assert probe() == ProbeResult("AVX2", "SIGILL")
    assert json.loads(cache.read_text())[module.cache_key()]["onednn_max_cpu_isa"] == "AVX2"


def test_cache_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a file where a folder should be
    use_child(monkeypatch, [None])
    assert probe() == ProbeResult()


def test_cache_location(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for value in ("", "relative/path"):  # the XDG specification: relative paths are to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        monkeypatch.setenv("HOME", str(tmp_path))
        assert cache_path() == tmp_path / ".cache" / "medserl" / "cpu_probe.json"


def test_child_does_not_see_the_cap_it_is_to_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "SSE41")
    seen = "import json, os; print(json.dumps([os.environ.get('{0}MAX_CPU_ISA'), 0]))"
    for prefix in ("ONEDNN_", "DNNL_"):
        monkeypatch.setattr(module, "_CHILD", seen.format(prefix))
        assert probe().onednn_max_cpu_isa is None


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_this_machine_has_an_answer() -> None:
    """The real child; whatever it says, a process that obeys it survives the products."""
    result = probe()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("ONEDNN_MAX_CPU_ISA", None)
    if result.onednn_max_cpu_isa is not None:
        environment["ONEDNN_MAX_CPU_ISA"] = result.onednn_max_cpu_isa
    code = "import torch; x = torch.ones(256, 256, dtype=torch.bfloat16); assert (x @ x).sum() == 256**3"
    module.subprocess.run([sys.executable, "-c", code], env=environment, check=True)
