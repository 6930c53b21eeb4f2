"""An emulated cluster as the tests use it, one for all of a session: submit, watch, break."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = Path(__file__).with_name("slurm_cluster.sh")
NODES = 2
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "ip", "nsenter")
PENDING = ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "REQUEUED", "SIGNALING", "PREEMPTED")


@dataclass
class Slurm:
    state: Path
    submit_dir: Path

    def submit(
        self, *arguments: str, script: str = "train_multinode", options: tuple[str, ...] = (), **variables: str
    ) -> int:
        """Submits a launcher as it is; the options given here stand for a cluster of this size."""
        command = ["sbatch", "--parsable", f"--nodes={NODES}", "--cpus-per-task=4", "--gpus-per-node=0", *options]
        done = subprocess.run(
            [*command, str(ROOT / "slurm" / f"{script}.sh"), *arguments],
            cwd=self.submit_dir,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    def output(self, job: int) -> str:
        return "".join(path.read_text() for path in self.submit_dir.glob(f"slurm-*-{job}.out"))

    def fields(self, job: int) -> dict[str, str]:
        command = ["scontrol", "-o", "show", "job", str(job)]
        for _ in range(10):  # on a busy machine the controller may not answer in time
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode == 0:
                break
            time.sleep(1)
        else:
            raise AssertionError(f"{command} ended with {done.returncode}: {done.stderr}")
        shown = done.stdout
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def wait_until(self, job: int, seconds: float, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{what}\n{self.fields(job)}\n{self.output(job)}"
            time.sleep(0.3)

    def wait_for(self, job: int, text: str, seconds: float) -> None:
        self.wait_until(job, seconds, lambda: text in self.output(job), f"waited for {text!r}")

    def wait_state(self, job: int, states: tuple[str, ...], seconds: float) -> None:
        self.wait_until(job, seconds, lambda: self.fields(job)["JobState"] in states, f"waited for {states}")

    def end(self, job: int, seconds: float) -> tuple[str, int]:
        """State and exit code of a job that has ended."""
        self.wait_until(job, seconds, lambda: self.fields(job)["JobState"] not in PENDING, "waited for the end")
        fields = self.fields(job)
        return fields["JobState"], int(fields["ExitCode"].split(":")[0])

    def control(self, *words: str) -> None:
        subprocess.run(["scontrol", *words], check=True)

    def resume(self, node: int) -> None:
        """Takes a node back that was set down; it may have come back by itself."""
        subprocess.run(["scontrol", "update", f"nodename=node{node}", "state=resume"], capture_output=True)

    def cancel(self, *words: str) -> None:
        subprocess.run(["scancel", *words], check=True)

    def node(self, action: str, number: int, *words: str) -> None:
        subprocess.run([SCRIPT, action, self.state, str(number), *words], check=True, timeout=60)

    @contextmanager
    def on_node(self, number: int, *words: str) -> Iterator["subprocess.Popen[str]"]:
        """A command that runs on a node beside Slurm while the block does."""
        command = [str(SCRIPT), "enter", str(self.state), str(number), *words]
        process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            # nsenter waits for its child, which alone is in the node's process namespace.
            for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
            process.communicate(timeout=60)

    def wait_idle(self, seconds: float = 90) -> None:
        """Until all nodes are free again; a node that a test took down comes back."""
        deadline = time.monotonic() + seconds
        while True:
            shown = subprocess.run(["sinfo", "-hN", "-p", "test", "-o", "%N %T"], capture_output=True, text=True).stdout
            states = [line.split()[1] for line in shown.splitlines()]
            if states == ["idle"] * NODES:
                return
            assert time.monotonic() < deadline, shown
            time.sleep(0.3)

    def scratch(self) -> list[Path]:
        """Node-local folders of jobs that are still there."""
        folders = [self.state / "tmp" / f"node{number}" for number in range(1, NODES + 1)]
        return [path for folder in folders for path in folder.glob("medserl-*")]

    def address(self, node: str) -> str:
        return next(line.split()[0] for line in (self.state / "hosts").read_text().splitlines() if node in line)

    def processes(self, name: str, *words: str) -> list[int]:
        """Numbers of the processes of that name with all of these in their command line, as this machine counts."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                comm, line = (process / "comm").read_text().strip(), (process / "cmdline").read_text()
            except OSError:  # gone in the meantime
                continue
            if comm == name and all(word in line for word in words):
                found.append(int(process.name))
        return found


@pytest.fixture(scope="session")
def slurm_session(tmp_path_factory: pytest.TempPathFactory, scratch: Path) -> Iterator[Slurm]:
    """The nodes see, of what lies in /tmp: where jobs are submitted, this checkout, its Python, and images."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        reason = f"needs root and Debian's Slurm packages (missing: {', '.join(missing) or 'root'})"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    state = folder / "state"
    submit_dir = folder / "submit"
    submit_dir.mkdir()
    shared = [str(submit_dir), str(scratch), str(ROOT), sys.prefix, sys.base_prefix]
    if image := os.environ.get("MEDSERL_TEST_SIF"):
        shared.append(str(Path(image).absolute().parent))
    previous = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(state / "slurm.conf")
    try:
        subprocess.run([SCRIPT, "up", state, str(NODES), *shared], check=True, timeout=60)
        yield Slurm(state, submit_dir)
    finally:
        subprocess.run([SCRIPT, "down", state], check=True, timeout=60)
        os.environ.pop("SLURM_CONF")
        if previous is not None:
            os.environ["SLURM_CONF"] = previous


@pytest.fixture
def slurm(slurm_session: Slurm) -> Iterator[Slurm]:
    """The cluster, idle before and after; what a failed test leaves is cancelled."""
    slurm_session.wait_idle()
    yield slurm_session
    subprocess.run(["scancel", "--user=root"], check=True)
