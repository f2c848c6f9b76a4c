"""The Dockerfile, without an engine to build it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def instructions() -> list[tuple[str, str]]:
    """Name and arguments, with continued lines joined."""
    text = (REPOSITORY / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name.upper(), arguments) for name, arguments in found]


def stages() -> list[list[tuple[str, str]]]:
    grouped: list[list[tuple[str, str]]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            grouped.append([])
        grouped[-1].append(instruction)
    return grouped


def last(stage: list[tuple[str, str]], name: str) -> str:
    return [arguments for found, arguments in stage if found == name][-1]


def test_every_base_is_pinned_by_digest() -> None:
    bases = [arguments for name, arguments in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert all(re.search(r":[\w.-]+@sha256:[0-9a-f]{64}( AS \w+)?$", base) for base in bases), bases


def test_the_toolchain_is_the_repositorys() -> None:
    channel = tomllib.loads((REPOSITORY / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    build, run = (stage[0][1] for stage in stages())
    assert build.startswith(f"rust:{channel}-slim-bookworm@"), build
    # What is linked on one Debian runs on the same.
    assert run.startswith("debian:bookworm-"), run
    # With that file in the image rustup would fetch components that nobody needs there.
    assert "!rust-toolchain.toml" not in (REPOSITORY / ".dockerignore").read_text()


def test_it_runs_as_nobody_and_can_be_asked_for_its_health() -> None:
    run = stages()[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last(run, "USER"))
    assert json.loads(last(run, "ENTRYPOINT")) == ["/usr/local/bin/entrypoint"]
    assert json.loads(last(run, "CMD")) == ["kappa", "run"]
    assert json.loads(last(run, "HEALTHCHECK").split("CMD ")[1]) == ["kappa", "health"]
    assert not any(name == "RUN" for name, _ in run), "nothing is executed, so nothing is installed, in what is shipped"
    labels = last(run, "LABEL")
    assert all(f"org.opencontainers.image.{label}=" in labels for label in ("title", "licenses", "revision"))


def test_all_programs_come_from_one_build() -> None:
    command = next(arguments for name, arguments in stages()[0] if name == "RUN" and "cargo build" in arguments)
    assert "--release --locked" in command
    for program in ("kappa", "kappa-dashboard", "kappa-loadtest"):
        assert f"--bin {program} " in command and f"target/release/{program} " in command


def test_what_is_copied_is_there_and_not_ignored() -> None:
    allowed = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((REPOSITORY / path).exists() for path in allowed)
    sources = [
        source
        for name, arguments in stages()[-1]
        if name == "COPY" and "--from" not in arguments
        for source in [part for part in arguments.split() if not part.startswith("--")][:-1]
    ]
    assert sources
    for source in sources:
        assert (REPOSITORY / source).is_file(), source
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), f"{source} is ignored"
    # Everything that cargo needs to know of each member of the workspace.
    members = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["members"]
    assert all(any(member == path or member.startswith(f"{path}/") for path in allowed) for member in members)
