"""What a job of the launchers makes and removes on a node, and what else is there: on stand-ins for Slurm, quickly."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medserl.slurm.request import launchers_dir

STAND_INS = {
    # As slurmstepd does, it makes the step's TMPDIR where that is missing.
    "srun": 'while [[ $1 == --* ]]; do shift; done\n[[ -z ${TMPDIR-} || -e $TMPDIR ]] || mkdir -m 700 "$TMPDIR"\n'
    'SLURMD_NODENAME=n1 exec "$@"',
    "scontrol": "[[ $1 == show && $2 == hostnames ]] && echo n1; exit 0",
    "squeue": 'case "$*" in *format=%A*) echo "${JOBS:-$SLURM_JOB_ID}" ;; *%N*) echo n1 ;; esac',
    "medserl": "exit 0",
}
JOB = """
source "$LAUNCHERS/lib.sh"
begin --run-dir run
guard
prepare_nodes
echo "made $tmp"
leave_for_attach
[[ -z ${KILLED:-} ]] || kill -9 $$
"""


class Node:
    """A node of its own scratch folder; the name is short, as sockets want it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.scratch = folder, folder / "sc"
        self.scratch.mkdir()
        for name, text in STAND_INS.items():
            path = folder / ("venv/bin" if name == "medserl" else "bin") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"#!/usr/bin/env bash\n{text}\n")
            path.chmod(0o755)
        (folder / "site.sh").touch()
        (folder / "job.sh").write_text(JOB)
        self.environment = {
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "LAUNCHERS": str(launchers_dir()),
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_SUBMIT_DIR": str(folder),
            "MEDSERL_SITE": str(folder / "site.sh"),
            "MEDSERL_VENV": str(folder / "venv"),
            "MEDSERL_GPUS_PER_NODE": "2",
        }

    def run(self, job: int = 4711, **variables: str) -> tuple[int, str]:
        variables = {"MEDSERL_SCRATCH": str(self.scratch), "SLURM_JOB_ID": str(job), **variables}
        return self.bash(self.folder / "job.sh", **variables)

    def bash(self, *words: object, **variables: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", *map(str, words)],
            env={**self.environment, **variables},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout

    def names(self) -> set[str]:
        return {path.name for path in self.scratch.iterdir()}


@pytest.fixture
def node() -> Iterator[Node]:
    folder = Path(f"/tmp/n{os.getpid()}")
    folder.mkdir()
    yield Node(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("setting", ["MEDSERL_TMP", "MEDSERL_SCRATCH"])
@pytest.mark.parametrize("end", ["", "/", "//"])
def test_folder_that_a_user_names_is_never_emptied(node: Node, setting: str, end: str) -> None:
    (node.scratch / "thesis").mkdir()
    (node.scratch / "thesis" / "chapter").write_text("precious")
    (node.scratch / "notes").write_text("precious")
    code, output = node.run(**{setting: f"{node.scratch}{end}"})
    assert code == 0, output
    assert f"made {node.scratch}/medserl-4711\n" in output
    assert node.names() == {"thesis", "notes"}
    assert (node.scratch / "thesis" / "chapter").read_text() == "precious"


OTHERS = (
    *("medserl-2024-my-notes", "medserl-3k2j_x9a", "medserl-9", "medserl-old", "other", "medserl-", "medserl-doctor-9"),
    *("medserl-9.bak", "xmedserl-9", "medserl-09", "medserl-9 ", "medserl-4712", "medserl-selftest-1"),
)


def test_sweep_takes_no_folder_of_the_users(node: Node) -> None:
    for name in OTHERS:
        (node.scratch / name).mkdir()
        (node.scratch / name / "file").touch()
    code, output = node.run()
    assert code == 0, output
    assert node.names() == set(OTHERS)
    assert all((node.scratch / name / "file").exists() for name in OTHERS)


def test_sweep_takes_what_a_job_left_that_is_over(node: Node) -> None:
    assert node.run(9, KILLED="yes")[0] != 0
    assert node.run(10, KILLED="yes", JOBS="9\n10", SLURM_CLUSTER_NAME="another")[0] != 0
    assert node.run(11, KILLED="yes", JOBS="9\n11")[0] != 0
    assert node.names() == {"medserl-9", "medserl-10", "medserl-11"}
    shutil.copytree(node.scratch / "medserl-9", node.scratch / "medserl-12")  # a mark of another job's
    time.sleep(0.05)
    code, output = node.run(JOBS="11\n4711")
    assert code == 0, output
    assert node.names() == {"medserl-10", "medserl-11", "medserl-12"}  # of another cluster, running, misnamed
    assert node.run(JOBS="9")[0] == 0  # a list that lacks this job is none
    assert node.names() == {"medserl-10", "medserl-11", "medserl-12"}


def test_next_attempt_takes_over_what_the_last_one_left(node: Node) -> None:
    node.run(KILLED="yes")
    (node.scratch / "medserl-4711" / "old").touch()
    code, output = node.run(SLURM_RESTART_COUNT="1", KILLED="yes")
    assert "made" in output, code
    assert not (node.scratch / "medserl-4711" / "old").exists()
    assert node.run(SLURM_RESTART_COUNT="2")[0] == 0
    assert node.names() == set()


@pytest.mark.parametrize("kind", ["folder", "link", "dangling", "file", "marked link"])
def test_another_folder_of_that_name_is_refused_and_left(node: Node, kind: str) -> None:
    there, mine = node.scratch / "medserl-4711", node.folder / "mine"
    mine.mkdir()
    (mine / "precious").touch()
    if kind == "folder":
        mine.rename(there)
    elif kind == "file":
        there.touch()
    else:
        there.symlink_to(mine if "link" in kind else node.folder / "nowhere")
    if kind == "marked link":
        (mine / ".medserl-job").write_text("4711 cluster\n0 n1\n")
    code, output = node.run()
    assert code == 2, output
    assert f"n1: {there} is there and was not made by job 4711" in output
    assert there.is_symlink() or there.exists()
    assert kind in ("dangling", "file") or (there / "precious").exists()


def test_folder_whose_mark_is_gone_is_left(node: Node) -> None:
    (node.folder / "job.sh").write_text(JOB + 'rm "$tmp/.medserl-job"; touch "$tmp/precious"\n')
    code, output = node.run()
    assert (code, "has no mark of job 4711 and is left as it is" in output) == (0, True)
    assert (node.scratch / "medserl-4711" / "precious").exists()


@pytest.mark.parametrize(("scratch", "code"), [("/tmp/nowhere-at-all", 1), ("sc", 2), ("/tmp/" + "x" * 40, 2)])
def test_scratch_that_cannot_be_is_one_sentence(node: Node, scratch: str, code: int) -> None:
    found, output = node.run(MEDSERL_SCRATCH=scratch)
    assert (found, "MEDSERL_SCRATCH" in output) == (code, True)


def test_attach_finds_the_folder_that_the_job_had(node: Node) -> None:
    node.run(KILLED="yes")
    attach = launchers_dir() / "attach.sh"
    code, output = node.bash(attach, "4711", "n1", "echo", "inside")
    assert (code, output) == (0, "inside\n")
    shutil.rmtree(node.folder / "run.launcher")
    code, output = node.bash(attach, "4711", "n1", "echo", "inside")
    assert (code, "set MEDSERL_SCRATCH" in output) == (2, True)
    code, output = node.bash(attach, "4711", "n1", "echo", "inside", MEDSERL_SCRATCH=str(node.scratch))
    assert (code, output) == (0, "inside\n")
    code, output = node.bash(attach, "4711", "n1", "true", MEDSERL_SCRATCH="/tmp")
    assert (code, "/tmp/medserl-4711/attach.sh is not there" in output) == (2, True)


# ------------------------------------------------------------------------------------------- what a node says beside


NOISE = ("", "Loading cuda", "n1 is low on memory", "n1 10.9.9.9 up", "10.0.0.1", "n3 10.0.0.3 eth0", "network", "n1")


@pytest.mark.parametrize("noise", NOISE)
def test_what_a_prolog_prints_is_no_network_and_no_port(node: Node, noise: str) -> None:
    lines = f'echo "{noise}"; printf "\\nnetwork n1 10.0.0.1 eth0\\nnetwork n2 10.0.0.2 \\n"; echo "{noise}"'
    text = (
        f"source $LAUNCHERS/lib.sh; hosts=(n1 n2) head=n1 SLURM_JOB_ID=1; everywhere() {{ {lines}; }}; find_network\n"
    )
    text += f'inside_on() {{ echo "{noise}"; echo; echo 20010; echo "{noise}"; }}; free_port; echo $port'
    code, output = node.bash("-c", text)
    assert code == 0, output
    assert output.endswith("network: n1 10.0.0.1 eth0; n2 10.0.0.2 ?; \n20010\n")


def test_step_without_a_port_is_one_sentence(node: Node) -> None:
    text = "source $LAUNCHERS/lib.sh; head=n1 SLURM_JOB_ID=1 address=([n1]=a); inside_on() { echo Loading; }; free_port"
    code, output = node.bash("-c", text)
    assert (code, "its step said Loading" in output.replace("'", "")) == (1, True)


@pytest.mark.parametrize(
    ("listed", "least"), [("64(x2)", "64"), ("40,8", "8"), ("8,40(x2)", "8"), ("", "5"), ("many", "5")]
)
def test_least_cpus_of_unequal_nodes(node: Node, listed: str, least: str) -> None:
    text = "source $LAUNCHERS/lib.sh; cpus_of_nodes"
    assert node.bash("-c", text, SLURM_JOB_CPUS_PER_NODE=listed, SLURM_CPUS_ON_NODE="5") == (0, f"{least}\n")


@pytest.mark.parametrize("name", ["train_multinode", "train_singlenode", "evaluate", "preflight"])
@pytest.mark.parametrize("arguments", ["", " --x", " /c/d.sh e"])
@pytest.mark.parametrize("place", ["/u/slurm", "/u/my cluster/slurm", "/u/v1.sh.d/slurm"])
def test_launcher_finds_its_library_beside_what_was_submitted(name: str, place: str, arguments: str) -> None:
    text = (launchers_dir() / f"{name}.sh").read_text()
    program = text.split("sed -n '")[1].split("'")[0]
    shown = f"JobId=1 JobName=a Command={place}/{name}.sh{arguments} WorkDir=/a b StdErr=/c/e.sh\n"
    done = subprocess.run(["sed", "-n", program], input=shown, capture_output=True, text=True)
    assert done.stdout == f"{place}\n"


def test_variables_of_an_outer_job_do_not_reach_steps(node: Node) -> None:
    text = JOB + 'env | grep -E "^(SLURM_CPU_BIND|SLURM_MEM_PER)" && exit 9; exit 0\n'
    (node.folder / "job.sh").write_text(text)
    code, output = node.run(
        SLURM_CPU_BIND="quiet,mask_cpu:0x1", SLURM_CPU_BIND_TYPE="mask_cpu:", SLURM_MEM_PER_CPU="4096"
    )
    assert code == 0, output
