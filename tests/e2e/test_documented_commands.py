"""The commands of docs/schema-evolution.md, run as they stand there, print what stands there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from blocks.kappa_process import binary, free_port
from blocks.stack import REPOSITORY, Stack

PAGE = REPOSITORY / "docs" / "schema-evolution.md"
# What a test does in its own way: the binary and the stack are there already.
SETUP = 'make build stack-up && . target/stack/env && export PATH="$PWD/target/release:$PATH"'
SECONDS = 120


@dataclass
class Step:
    line: int
    commands: str
    # Lines that must be printed, in this order; an ellipsis stands for anything.
    printed: list[str]


def _steps(page: str) -> list[Step]:
    steps: list[Step] = []
    for block in re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        language, content = block[1], block[2]
        if language == "sh":
            steps.append(Step(page[: block.start()].count("\n") + 2, content, []))
        elif language == "text":
            steps[-1].printed = content.splitlines()
    return steps


def _script(steps: list[Step]) -> str:
    """Each step behind a mark with its line, in one shell, so that variables and the pipeline in the background stay."""
    parts = ["set -euo pipefail", "trap 'kill $(jobs -p) 2> /dev/null || true' EXIT"]
    for step in steps:
        parts += [f"echo '#### {step.line}'", f"echo '#### {step.line}' >&2", step.commands]
    return "\n".join(parts)


def _outputs(text: str) -> dict[int, str]:
    parts = re.split(r"^#### (\d+)\n", text, flags=re.MULTILINE)
    return {int(line): output for line, output in zip(parts[1::2], parts[2::2], strict=True)}


def _check_printed(step: Step, output: str) -> None:
    wanted = [r".*".join(re.escape(part.strip()) for part in " ".join(line.split()).split("…")) for line in step.printed]
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for line, pattern in zip(step.printed, wanted, strict=True):
        found = any(re.search(pattern.replace(r"\ .*", " *.*").replace(r".*\ ", ".* *"), printed) for printed in lines)
        assert found, f"line {step.line}: `{line}` is not printed there:\n{output}"


def _directory(path: Path, stack: Stack) -> None:
    """A checkout with a `target` of its own."""
    for name in ("schemas", "deploy", "docs"):
        (path / name).symlink_to(REPOSITORY / name)
    (path / "bin").mkdir()
    (path / "bin" / "kappa").symlink_to(binary())


def _run(script: Path, environment: dict[str, str]) -> tuple[int, str, str]:
    """In a session of its own, so that nothing of it stays when it takes too long."""
    out, err = script.with_suffix(".out"), script.with_suffix(".err")
    with out.open("wb") as output, err.open("wb") as error:
        process = subprocess.Popen(
            ["bash", str(script)], cwd=script.parent, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=error,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    return code, out.read_text(), err.read_text()


def test_the_page_on_schemas_that_change(stack: Stack, tmp_path: Path) -> None:
    steps = _steps(PAGE.read_text())
    assert steps[0].commands.strip() == SETUP
    assert len(steps) > 10 and sum(bool(step.printed) for step in steps) >= 7
    _directory(tmp_path, stack)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("KAPPA_", "AWS_"))},
        **stack.environment,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PORT": str(free_port()),
        "NO_COLOR": "1",
        # Environments of Python are where they always are, not below the test's directory.
        **({"KAPPA_CACHE": os.environ["KAPPA_CACHE"]} if "KAPPA_CACHE" in os.environ else {}),
    }
    script = tmp_path / "page.sh"
    script.write_text(_script(steps[1:]))
    code, output, error = _run(script, environment)
    outputs, errors = _outputs(output), _outputs(error)
    last = max(outputs)
    log = tmp_path / "target" / "evolution" / "kappa.log"
    tail = log.read_text()[-1500:] if log.exists() else ""
    assert code == 0, f"the block at line {last} of {PAGE} ended with {code}:\n{outputs[last]}\n{errors[last]}\n{tail}"
    for step in steps[1:]:
        _check_printed(step, outputs[step.line])
