"""A Docker daemon of the tests' own, and base images made out of Debian packages: no registry is asked.

The daemon has its own data, socket and process id; it reaches no network, and touches no other daemon. It is started by
a keeper that lives as long as the test run, and takes the daemon and its data away at the end, however that comes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from requires import require

__all__ = ["DockerHost", "base_archive", "docker_host", "require_docker"]

#: Debian's own programs: a newer client that may come first on PATH does not fit Debian's daemon.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_KEEPER = """
import os, shutil, signal, subprocess, sys, time
if os.fork():
    os._exit(0)  # whoever starts it need not wait for it
os.setsid()
folder, watched, driver = sys.argv[1], int(sys.argv[2]), sys.argv[3]
command = ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid",
           "--host", f"unix://{folder}/docker.sock", "--iptables=false", "--bridge=none", "--storage-driver", driver]
with open(f"{folder}/log", "ab") as log:
    daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
while alive(watched) and daemon.poll() is None and not os.path.exists(f"{folder}/stop"):
    time.sleep(0.2)
if daemon.poll() is None:
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(30)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
shutil.rmtree(folder, ignore_errors=True)
"""


@dataclass(frozen=True)
class DockerHost:
    """A daemon that runs.

    Attributes:
        folder: its data, its log, its socket.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What a program needs to use it."""
        return {"DOCKER_HOST": f"unix://{self.folder}/docker.sock", "PATH": f"{_PATH}:{os.environ['PATH']}"}

    def docker(self, *arguments: str, data: bytes | None = None) -> str:
        """Run Docker's client; give what it prints."""
        done = subprocess.run(
            ["/usr/bin/docker", *arguments],
            check=False,
            input=data,
            capture_output=True,
            env={**os.environ, **self.environment},
        )
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        return done.stdout.decode()

    def logs(self, container: str) -> str:
        """What a container has printed so far, stdout and stderr."""
        done = subprocess.run(
            ["/usr/bin/docker", "logs", container],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **self.environment},
        )
        return done.stdout.decode()

    def derive(self, image: str, *instructions: str) -> str:
        """An image made of another one by a few instructions of a Dockerfile; give its id."""
        text = "\n".join([f"FROM {image}", *instructions]) + "\n"
        with tempfile.TemporaryDirectory() as context:
            Path(context, "Dockerfile").write_text(text)
            identity = Path(context, "id")
            self.docker("build", "--quiet", "--network", "none", "--iidfile", str(identity), context)
            return identity.read_text().strip()


def require_docker() -> None:
    """Skip, or fail where CI says so, unless a daemon can be started here."""
    missing = [name for name in ("docker", "dockerd", "mmdebstrap") if shutil.which(name, path=_PATH) is None]
    require("DOCKER", there=not missing, reason=f"there is no {', '.join(missing)} here")
    require("DOCKER", there=os.geteuid() == 0, reason="a Docker daemon can only be started as root")


def docker_host(shared: Path, watched: int) -> DockerHost:
    """The test run's daemon, started by whoever asks first.

    Args:
        shared: a directory that all test workers share.
        watched: the process with whose end the daemon ends.
    """
    note = shared / "docker-host"
    with FileLock(f"{note}.lock"):
        if note.exists():
            return DockerHost(Path(note.read_text()))
        for driver in ("overlay2", "vfs"):
            host = DockerHost(Path(tempfile.mkdtemp(prefix="ccd-")))  # a socket's path must be short
            subprocess.run(
                [sys.executable, "-c", _KEEPER, str(host.folder), str(watched), driver],
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PATH": f"{_PATH}:{os.environ['PATH']}"},
            )
            if _answers(host):
                _import(host, "localhost/comfy-cpu-test-base:1", base_archive())
                note.write_text(str(host.folder))
                return host
            (host.folder / "stop").touch()
        raise AssertionError("dockerd starts neither with overlay2 nor with vfs")


def _answers(host: DockerHost) -> bool:
    """Wait until the daemon answers; its folder is gone where it ended."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and host.folder.is_dir():
        done = subprocess.run(
            ["/usr/bin/docker", "info"], check=False, capture_output=True, env={**os.environ, **host.environment}
        )
        if done.returncode == 0:
            return True
        time.sleep(0.1)
    return False


def _import(host: DockerHost, name: str, archive: Path) -> None:
    host.docker("import", str(archive), name)


def base_archive(*packages: str) -> Path:
    """A Debian with Python, as an archive; made once for each list of packages and kept between test runs.

    It has Debian's own certificates, not this machine's.
    """
    command = [
        "mmdebstrap",
        "--variant=apt",
        f"--include={','.join(('python3', 'ca-certificates', *sorted(packages)))}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        "bookworm",
    ]
    key = hashlib.sha256(json.dumps(command).encode()).hexdigest()[:16]
    archive = Path(tempfile.gettempdir()) / f"comfy-cpu-test-base-{key}.tar"
    with FileLock(f"{archive}.lock"):
        if not archive.exists():
            part = archive.with_suffix(".part.tar")
            done = subprocess.run([*command, str(part)], check=False, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            part.rename(archive)
    return archive
