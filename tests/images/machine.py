"""A Docker daemon, the `cpu` image, its SIF and the GPU packages: each made once, for real, and removed at the end.

What takes minutes begins with the first test that runs on a cluster or an image (`head_start`) and goes on at a lower
priority beside the tests that come first; a fixture named …_coming has begun, the one without waits for its end. What
is missing on the machine skips with a reason; where CI=true it fails.
"""

import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = Path(__file__).resolve().parent
IMAGE, BASE = "medserl:cpu", "medserl-base:test"
REVISION = "0123456789abcdef0123456789abcdef01234567"  # any: that the label takes it is what is looked at
BASE_CERTIFICATES = "/usr/local/share/host-certificates.crt"  # make-base.sh puts them there
# Where the packages come from on this machine goes along into the build.
CARRIED = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
BUILD_SECONDS = 1800  # on a machine that is busy with other tests
NICE = ("nice", "-n", "19")  # below Ray's workers, which Ray itself puts at 15


def missing(reason: str) -> NoReturn:
    """Skip, or fail where CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def need(*tools: str, root: bool = True) -> None:
    absent = [tool for tool in tools if shutil.which(tool) is None]
    if absent:
        missing(f"not installed: {', '.join(absent)}")
    if root and os.geteuid() != 0:
        missing("needs root")


def checked(command: Sequence[object], *, env: Mapping[str, str] | None = None, timeout: float = 900) -> str:
    """Runs a command; its output, which a failure shows whole."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=env, timeout=timeout, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


def done[T](value: T) -> "Future[T]":
    future: Future[T] = Future()
    future.set_result(value)
    return future


@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    """A folder with a short name for gigabytes, removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="mi-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def background() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(4)
    yield pool
    pool.shutdown(wait=False, cancel_futures=True)  # what still runs ends with Docker's daemon


@pytest.fixture(scope="session", autouse=True)
def head_start(request: pytest.FixtureRequest) -> None:
    """What the chosen tests will want begins now. What fails here fails again where it is wanted."""
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    for name in ("cpu_image_coming", "sif_coming", "gpu_report_coming"):
        if name in wanted:
            with contextlib.suppress(pytest.skip.Exception, pytest.fail.Exception, AssertionError):
                request.getfixturevalue(name)


# ------------------------------------------------------------------------------------------------------ Docker


def docker_client() -> str:
    """A client that can use BuildKit: those up to 22 by themselves, later ones with buildx."""
    for candidate in ("/usr/bin/docker", shutil.which("docker") or ""):
        version = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout if candidate else ""
        if not version:
            continue
        buildx = subprocess.run([candidate, "buildx", "version"], capture_output=True)
        if int(version.split()[2].split(".")[0]) < 23 or buildx.returncode == 0:
            return candidate
    missing("no docker client with BuildKit (Debian's docker.io has one)")


@dataclass(frozen=True)
class Docker:
    """A daemon of these tests' own."""

    client: str
    host: str

    def run(self, *words: object, timeout: float = 900) -> str:
        env = {**os.environ, "DOCKER_BUILDKIT": "1"}
        return checked([self.client, "--host", self.host, *words], env=env, timeout=timeout)

    def inspect(self, name: str) -> dict[str, Any]:
        (found,) = json.loads(self.run("inspect", name))
        answer: dict[str, Any] = found
        return answer


@pytest.fixture(scope="session")
def docker(scratch: Path) -> Iterator[Docker]:
    """A daemon started and ended here; MEDSERL_TEST_DOCKER names one that is there, whose build cache saves minutes."""
    client = docker_client()
    if os.environ.get("MEDSERL_TEST_DOCKER"):
        yield Docker(client, os.environ["MEDSERL_TEST_DOCKER"])
        return
    need("dockerd", "mmdebstrap")
    folder = scratch / "docker"
    folder.mkdir()
    host = f"unix://{folder / 'socket'}"
    # No bridge and no firewall rules: images build with the host's network and run with none.
    command = [*NICE, "dockerd", "--host", host]
    command += ["--data-root", folder / "data", "--exec-root", folder / "exec"]
    command += ["--pidfile", folder / "pid", "--iptables=false", "--ip-masq=false", "--bridge=none"]
    log = (folder / "log").open("w")
    daemon = subprocess.Popen([str(word) for word in command], stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run([client, "--host", host, "version"], capture_output=True).returncode:
            assert daemon.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
            time.sleep(0.2)
        yield Docker(client, host)
    finally:
        daemon.send_signal(signal.SIGTERM)  # ends its containers and its containerd, and unmounts
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
        log.close()


def certificates() -> str:
    """The certificates that this machine's own downloads are checked against."""
    paths = ssl.get_default_verify_paths()
    found = os.environ.get("SSL_CERT_FILE") or paths.cafile or "/etc/ssl/certs/ca-certificates.crt"
    if not Path(found).is_file():
        missing(f"no certificates at {found} (ca-certificates)")
    return found


def make_base(docker: Docker, base: Path) -> None:
    """The image BASE: what make-base.sh makes, and from where this machine gets its packages."""
    checked([*NICE, HERE / "make-base.sh", base, sys.base_prefix, certificates()])
    variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    variables |= dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), BASE_CERTIFICATES)
    variables |= {name: os.environ[name] for name in CARRIED if os.environ.get(name)}
    changes = [word for name, value in variables.items() for word in ("--change", f"ENV {name}={value}")]
    docker.run("import", *changes, base, BASE)
    base.unlink()


def build_cpu_image(docker: Docker, scratch: Path) -> str:
    if not docker.run("images", "--quiet", BASE).strip():
        make_base(docker, scratch / "base.tar")
    arguments = ["--build-arg", f"BASE_IMAGE={BASE}", "--build-arg", f"REVISION={REVISION}"]
    words = ["--progress=plain", "--network=host", "--target=cpu", *arguments, "--tag", IMAGE, ROOT]
    docker.run("build", *words, timeout=BUILD_SECONDS)
    if "MEDSERL_TEST_DOCKER" not in os.environ:
        docker.run("builder", "prune", "--all", "--force")  # 6 GB of downloads
    return IMAGE


@pytest.fixture(scope="session")
def cpu_image_coming(docker: Docker, scratch: Path, background: ThreadPoolExecutor) -> "Future[str]":
    return background.submit(build_cpu_image, docker, scratch)


@pytest.fixture(scope="session")
def cpu_image(cpu_image_coming: "Future[str]") -> str:
    """The Dockerfile's target `cpu`, built on a base that this machine made."""
    return cpu_image_coming.result()


# ------------------------------------------------------------------------------------------------------ Apptainer


def install_apptainer(scratch: Path, env: dict[str, str]) -> dict[str, str]:
    prefix = scratch / "apptainer"
    print(checked([HERE / "install_apptainer.sh", prefix]))
    return {**env, "PATH": os.pathsep.join([str(prefix / "usr" / "bin"), env["PATH"]])}


@pytest.fixture(scope="session")
def apptainer_coming(scratch: Path, background: ThreadPoolExecutor) -> "Future[dict[str, str]]":
    env = {**os.environ, "APPTAINER_CACHEDIR": str(scratch / "cache"), "APPTAINER_TMPDIR": str(scratch)}
    if shutil.which("apptainer"):
        return done(env)
    need("apt-get", "mksquashfs", "squashfuse", "fuse-overlayfs", "newuidmap", "patchelf")
    return background.submit(install_apptainer, scratch, env)


@pytest.fixture(scope="session")
def apptainer(apptainer_coming: "Future[dict[str, str]]") -> dict[str, str]:
    """An environment in which `medserl image` finds Apptainer: the machine's own, or one of unstable's in a folder."""
    return apptainer_coming.result()


def medserl_image(env: Mapping[str, str], *words: object, timeout: float = 900) -> str:
    nice = NICE if words[0] == "build" else []  # beside other tests
    return checked([*nice, sys.executable, "-m", "medserl", "image", *words], env=env, timeout=timeout)


def build_sif(host: str, image: "Future[str]", apptainer: "Future[dict[str, str]]", path: Path) -> Path:
    env = {**apptainer.result(), "DOCKER_HOST": host}
    # --no-test: a build's test step wants a capability that a container may not have; the test is run afterwards.
    words = ["--no-test", "--from", f"docker-daemon:{image.result()}", path]
    medserl_image(env, "build", *words, timeout=BUILD_SECONDS)
    return path


@pytest.fixture(scope="session")
def sif_coming(
    request: pytest.FixtureRequest,
    apptainer_coming: "Future[dict[str, str]]",
    scratch: Path,
    background: ThreadPoolExecutor,
) -> "Future[Path]":
    path = Path(os.environ.get("MEDSERL_TEST_SIF") or scratch / "medserl.sif").absolute()
    if path.exists():
        return done(path)
    docker, image = request.getfixturevalue("docker"), request.getfixturevalue("cpu_image_coming")
    return background.submit(build_sif, docker.host, image, apptainer_coming, path)


@pytest.fixture(scope="session")
def sif(sif_coming: "Future[Path]") -> Path:
    """The SIF of the `cpu` image, by `medserl image build`; MEDSERL_TEST_SIF names one that is there, or is to stay."""
    return sif_coming.result()


# ------------------------------------------------------------------------------------------------------ GPU packages


class GpuPackages:
    """`bootstrap.py --device cuda setup --packages` into an empty environment, looked at, and removed.

    Its 10 GB, and those of the downloads, which it shares with nothing here, are not to lie beside those of a SIF that
    is built.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.lock, self.ended = threading.Lock(), False

    def report(self, after: "Future[Path] | None") -> str:
        """What import_all.py says in that environment; begins when ``after`` has ended, however it did."""
        if after is not None:
            wait([after])
        try:
            return self._report()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _report(self) -> str:
        venv, log = self.folder / "venv", self.folder / "log"
        env = {
            **os.environ,
            "CXX": str(HERE / "unoptimised-cxx.sh"),
            "QUICK_CXX_FOLDER": str(self.folder / "cxx"),
            "MAX_JOBS": "1",
            "UV_CACHE_DIR": str(self.folder / "downloads"),
            "UV_COMPILE_BYTECODE": "0",  # the test imports most of it once
        }
        command = [*NICE, sys.executable, str(ROOT / "bootstrap.py"), "--device", "cuda", "--venv", str(venv)]
        with self.lock:  # nothing begins once the session is over
            assert not self.ended, "the tests ended first"
            (self.folder / "cxx").mkdir(parents=True)
            with log.open("w") as file:
                self.process = subprocess.Popen(
                    [*command, "setup", "--packages"], env=env, stdout=file, stderr=file, start_new_session=True
                )
        assert self.process.wait(3600) == 0, log.read_text()[-5000:]
        return checked([*NICE, venv / "bin" / "python", HERE / "import_all.py", ROOT / "requirements" / "gpu.txt"])

    def end(self) -> None:
        with self.lock:
            self.ended = True
            if self.process is not None and self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def gpu_report_coming(
    request: pytest.FixtureRequest, scratch: Path, background: ThreadPoolExecutor
) -> "Iterator[Future[str]]":
    """What import_all.py says in an environment of the GPU packages, after the SIF where one is wanted."""
    if shutil.which("g++") is None and os.geteuid() != 0:  # root's set-up installs one
        missing("the GPU packages need g++ to compile Transformer Engine's torch half")
    after = None
    if any("sif" in getattr(item, "fixturenames", ()) for item in request.session.items):
        with contextlib.suppress(pytest.skip.Exception, pytest.fail.Exception, AssertionError):
            after = request.getfixturevalue("sif_coming")
    packages = GpuPackages(scratch / "gpu")
    yield background.submit(packages.report, after)
    packages.end()
