"""What becomes of checks that pass, fail, die, hang or do not fit, told by stubs in real child processes."""

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import pytest

from medserl.bringup.checks import CHECKS, FAILED, LEFT_OUT, NOT_RUN, PASSED, TITLES, TRAINER, Check, chosen
from medserl.bringup.machine import children_environment, device_here, first_line, missing
from medserl.bringup.runner import Runner
from medserl.bringup.table import listing, summary
from medserl.cli import bringup as command
from medserl.cli.main import build_parser, main
from medserl.errors import ConfigError

STUBS = "stubs"
HERE = str(Path(__file__).parent)


def check(key: str, name: str, **changes: Any) -> Check:
    values = {"cuda_seconds": 1.0, "cpu_seconds": 1.0, "packages": ()} | changes
    return Check(key, name, f"{STUBS}:{name}", "nothing in particular", **values)


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return children_environment("cuda", {**os.environ, "PYTHONPATH": HERE})


def run(checks: list[Check], environment: dict[str, str], minutes: float | None = None) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = []
    lines = Runner("cpu", environment, seen.append, minutes).run(checks)
    assert lines == seen
    assert [line["check"] for line in lines] == [one.key for one in checks]
    return lines


def test_each_outcome_is_told_and_the_next_check_runs(environment: dict[str, str]) -> None:
    names = ["passes", "raises", "is_unexpected", "is_not_run", "dies", "passes", "leaves", "cannot_be_written", "none"]
    lines = run([check(f"a{i}", name) for i, name in enumerate(names)], environment)
    assert [line["status"] for line in lines] == [
        *(PASSED, FAILED, FAILED, NOT_RUN, FAILED, PASSED, FAILED, PASSED, FAILED),
    ]
    by_name = dict(zip([*names[:5], "again", *names[6:]], lines, strict=True))
    assert by_name["raises"]["why"] == "RuntimeError: no kernel image"
    assert by_name["is_unexpected"]["why"] == "too slow" and by_name["is_unexpected"]["measured"] == {"mfu": 0.1}
    assert by_name["is_not_run"]["why"] == "this GPU is too old"
    assert "SIGILL" in by_name["dies"]["why"] and "device-side assert" in by_name["dies"]["why"]
    assert "exit code 3" in by_name["leaves"]["why"]
    assert "AttributeError" in by_name["none"]["why"]
    assert by_name["passes"]["measured"]["there"] and by_name["passes"]["measured"]["device"] == "cpu"
    assert by_name["again"]["measured"]["pid"] != by_name["passes"]["measured"]["pid"]


def test_a_group_shares_a_process_unless_a_check_wants_its_own(environment: dict[str, str]) -> None:
    checks = [check("a1", "passes"), check("a2", "passes"), check("a3", "passes", fresh=True), check("b1", "passes")]
    first, second, fresh, other = (line["measured"]["pid"] for line in run(checks, environment))
    assert first == second and len({first, fresh, other}) == 3


def test_what_hangs_is_ended_with_all_it_started(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    lines = run([check("a1", "hangs", patience=0.0, grace=1.5), check("a2", "passes")], environment)
    assert lines[0]["status"] == FAILED and "no answer after" in lines[0]["why"]
    assert lines[1]["status"] == PASSED
    (pids,) = tmp_path.glob("medserl-bringup-*.pids")
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: gone(pid))


def wait_until(there: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_what_does_not_fit_is_left_out_and_what_fits_still_runs(environment: dict[str, str]) -> None:
    checks = [check("a1", "passes", cpu_seconds=3600.0), check("a2", "passes")]
    long, short = run(checks, environment, minutes=1.0)
    assert long["status"] == LEFT_OUT and "takes about 3600 s" in long["why"]
    assert short["status"] == PASSED


def test_what_is_not_here_is_said_and_no_process_started(environment: dict[str, str]) -> None:
    checks = [check("a1", "dies", cpu_seconds=None), check("a2", "dies", packages=("os", "no_such_package.inner"))]
    gpu, package = run(checks, environment)
    assert (gpu["status"], gpu["why"]) == (NOT_RUN, "no GPU")
    assert (package["status"], package["why"]) == (NOT_RUN, "no_such_package.inner is not installed")
    assert missing(("json", "os.path")) is None
    assert missing(TRAINER) is None
    for one in CHECKS:  # without Transformer Engine, mbridge makes no model on a GPU
        if one.group in "bcd" and one.key not in ("b2", "c1"):
            assert "transformer_engine" in one.needs("cuda") and "transformer_engine" not in one.needs("cpu"), one.key


@pytest.mark.parametrize(("names", "code"), [(["passes", "is_not_run"], 0), (["passes", "raises"], 1), ([], 0)])
def test_the_command_writes_lines_and_a_table(
    names: list[str], code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", HERE)
    monkeypatch.setattr(command, "children_environment", lambda device: children_environment("cuda"))
    out = tmp_path / "lines.jsonl"
    options = build_parser().parse_args(["bringup", "--out", str(out), "--device", "cpu"])
    checks = [check(f"a{i}", name) for i, name in enumerate(names)]
    assert command.bringup(options, checks) == code
    first, *lines = map(json.loads, out.read_text().splitlines())
    assert first["machine"] and first["device"].startswith("CPU") and "torch" in first["versions"]
    assert [line["check"] for line in lines] == [one.key for one in checks]
    assert out.stat().st_mode & 0o077 == 0
    told = capsys.readouterr().out
    assert "without a GPU" in told or not names
    assert all(line["title"] in told for line in lines)


def test_a_full_disk_keeps_no_check_from_running(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line is written; then there is no room any more, which is told when all is over."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    monkeypatch.setattr(command, "children_environment", lambda device: children_environment("cuda"))
    whole = command.writer

    def full(file: TextIO) -> Callable[[dict[str, Any]], None]:
        def write(line: dict[str, Any]) -> None:
            if "check" in line:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            whole(file)(line)

        return write

    monkeypatch.setattr(command, "writer", full)
    options = build_parser().parse_args(["bringup", "--out", str(tmp_path / "lines"), "--device", "cpu"])
    with pytest.raises(OSError, match="No space left"):
        command.bringup(options, [check("a1", "passes"), check("a2", "raises")])
    told = capsys.readouterr().out
    assert "a1  passed" in told and "a2  failed" in told and "1 passed, 1 failed" in told


def test_a_number_that_is_none_is_no_broken_line(tmp_path: Path) -> None:
    """A loss that is not finite is what (c) is there to find; JSON has no number for it."""
    with (tmp_path / "lines").open("w") as file:
        command.writer(file)({"measured": {"loss": float("nan"), "losses": [1.0, float("inf")]}, "seconds": 1.5})
    assert json.loads((tmp_path / "lines").read_text(), parse_constant=pytest.fail) == {
        "measured": {"loss": "nan", "losses": [1.0, "inf"]},
        "seconds": 1.5,
    }


def test_a_process_that_cannot_start_is_told(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("medserl.bringup.runner.subprocess.Popen", none)
    one, two = run([check("a1", "passes"), check("a2", "passes")], environment)
    assert one["why"] == two["why"] == "no process could be started (Cannot allocate memory)"


def test_sigterm_ends_the_check_under_way(tmp_path: Path) -> None:
    """`timeout 600 medserl bringup`: what would go on has the GPU."""
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "from test_runner import check, command, build_parser\n"
        "options = build_parser().parse_args(['bringup', '--out', sys.argv[3], '--device', 'cpu'])\n"
        "command.children_environment = lambda device: {**__import__('os').environ, 'PYTHONPATH': ':'.join(sys.path)}\n"
        "command.bringup(options, [check('a1', 'hangs')])\n"
    )
    words = [sys.executable, "-c", code, HERE, str(Path(HERE).parents[1]), str(tmp_path / "lines")]
    with subprocess.Popen(words, env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        wait_until(lambda: bool(list(tmp_path.glob("medserl-bringup-*.pids"))), seconds=60)
        (pids,) = tmp_path.glob("medserl-bringup-*.pids")
        wait_until(lambda: len(pids.read_text().split()) == 2)
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: gone(pid))
    assert not list(tmp_path.glob("medserl-bringup-*/"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--only", "z"], "--only: z is not a check"),
        (["--only", ","], "--only: ',' is not a check"),
        (["--until", "0"], "--until: 0.0 is not a number of minutes"),
        (["--until", "nan"], "--until: nan is not a number"),
        (["--device", "cuda"], "--device: cuda, but no GPU is here"),
        (["a.b=1"], "takes no overrides"),
    ],
)
def test_bad_options_are_told_in_a_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medserl.bringup.machine.gpus_here", lambda: 0)
    assert main(["bringup", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_listing_starts_nothing_and_needs_no_gpu(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medserl.bringup.machine.gpus_here", lambda: 0)
    assert main(["bringup", "--list", "--device", "cuda"]) == 0
    assert capsys.readouterr().out.strip() == listing(CHECKS, "cuda").strip()


def test_an_output_that_cannot_be_written_is_told_before_anything_runs(tmp_path: Path) -> None:
    assert main(["bringup", "--only", "a1", "--device", "cpu", "--out", str(tmp_path / "no" / "lines")]) == 2


def test_checks_are_chosen_in_the_order_of_the_list() -> None:
    assert [one.key for one in chosen("b,a1,c4")] == ["a1", "b1", "b2", "c4"]
    assert chosen(None) == list(CHECKS)
    with pytest.raises(ConfigError, match="a9 is not a check"):
        chosen("a9")


def test_the_list_has_every_letter_and_every_function() -> None:
    assert list(dict.fromkeys(one.group for one in CHECKS)) == list(TITLES)
    assert len({one.key for one in CHECKS}) == len(CHECKS)
    package = Path(command.__file__).parents[1]
    for one in CHECKS:
        module, name = one.call.split(":")
        source = package.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text()
        assert f"\ndef {name}(place: Place)" in source, one.call
        assert one.expected and (one.cuda_seconds or one.cpu_seconds)
    assert sum(one.cuda_seconds or 0 for one in CHECKS if one.group in "abcd") <= 600  # "provable in ten minutes"


def test_listing_and_summary_name_what_a_machine_lacks() -> None:
    assert "no GPU" in listing(CHECKS, "cpu") and "no GPU" not in listing(CHECKS, "cuda")
    line = {"check": "c4", "title": "update", "status": PASSED, "device": "cuda", "seconds": 2.0}
    told = summary({"device": "1 H100"}, [line | {"measured": {"mfu": 0.5, "inner": {"tokens_per_s": 12345.6}}}])
    assert "mfu 0.5, inner tokens_per_s 12346" in told and "without a GPU" not in told


def test_a_gpu_without_vllm_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medserl.bringup.machine.gpus_here", lambda: 1)
    for version, device in ((None, "cuda"), ("0.24.0", "cuda"), ("0.24.0+cpu", "cpu")):
        monkeypatch.setattr("medserl.bringup.machine._version", lambda name, version=version: version)
        assert device_here() == device


def test_the_first_line_tells_a_foreign_programs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from medserl.preflight.node_checks import Check as Seen

    in_use = "GPU 0 has 19.5 GiB in use (nvidia-smi shows by whom)"
    seen = [Seen("GPUs", "1 NVIDIA H100 80GB HBM3", in_use), Seen("driver", "580.1")]
    monkeypatch.setattr("medserl.bringup.machine.gpu_checks", lambda wanted: seen)
    line = first_line("cuda")
    assert line["driver"] == "580.1" and "H100" in line["device"]
    assert line["odd"] == [f"GPUs: {in_use}"]
