"""The commands of docs/dead-letters.md, run as they stand there, on what the page tells of."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from pathlib import Path

from blocks.kappa_process import binary
from blocks.records import Accepted, PlannedRecord, Rejected
from blocks.redrives import DeadLetterQueue, Expected, Place
from blocks.schemas import UNKNOWN_ID, frame
from blocks.stack import REPOSITORY
from blocks.world import World, WorldMaker

PAGE = REPOSITORY / "docs" / "dead-letters.md"
LEAST_COMMANDS = 20


def _commands() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def _records(world: World) -> list[PlannedRecord]:
    """What the page tells: ten good records, then JSON, three of a foreign registry, NaN, a tombstone, a byte too many."""
    same, now_ms = world.schemas.same, int(time.time() * 1000)
    stream = world.stream(seed=950, broken_share=0.0)
    good = [{**stream.valid_event(0), "event_time": now_ms, "sequence": number} for number in range(12)]

    def poison(value: bytes | None, reason: str, schema_id: int | None) -> PlannedRecord:
        return PlannedRecord(0, b"sensor-7", value, (("producer", b"gateway-7"),), now_ms, Rejected(reason, schema_id))

    def accepted(event: dict) -> PlannedRecord:
        return PlannedRecord(0, event["sensor_id"].encode(), same.framed(event), (), now_ms, Accepted(event, same.schema_id))

    return [
        *map(accepted, good[:10]),
        poison(b'{"sensor_id": "sensor-7", "value": 20.5}', "bad_magic", None),
        *(poison(frame(UNKNOWN_ID, same.body({**good[10], "sequence": 100 + number})), "unknown_schema_id", UNKNOWN_ID) for number in range(3)),
        poison(same.framed({**good[10], "value": math.nan}), "non_finite_value", same.schema_id),
        poison(None, "tombstone", None),
        poison(same.framed(good[11]) + b"\0", "trailing_bytes", same.schema_id),
    ]


def test_the_commands_of_the_page_run_as_they_are_written(make_world: WorldMaker, tmp_path: Path) -> None:
    world = make_world(partitions=1)
    same = world.schemas.same
    records = _records(world)
    world.producer.send(records)
    kappa = world.start()
    world.wait_until_committed()
    queue = DeadLetterQueue(world)

    directory = tmp_path / "page"
    (directory / "bin").mkdir(parents=True)
    (directory / "bin" / "kappa").symlink_to(binary())
    (directory / "schemas").symlink_to(REPOSITORY / "schemas")
    (directory / "kappa.toml").write_text(Path(queue.config).read_text())
    commands = _commands()
    assert len(commands) >= LEAST_COMMANDS, commands
    # What was sent must be taken in before it is verified.
    script = "\n".join(f"printf '\\n$ %s\\n' {_quoted(line)}\n{line}" for line in commands)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("KAPPA_", "AWS_"))}
    environment |= world.stack.environment | {"PATH": f"{directory / 'bin'}:{os.environ['PATH']}", "RUST_LOG": "warn"}
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = f"{result.stdout}\n{result.stderr}"
    assert result.returncode == 0, said
    assert "some were left out" in result.stdout and "7 dead letters" in result.stdout, said
    _check_examples(result.stdout)

    def expected(place: Place, record: PlannedRecord) -> Expected:
        if isinstance(record.fate, Rejected) and record.fate.reason == "unknown_schema_id":
            value = frame(same.schema_id, (record.value or b"")[5:])
        elif place[1] == 16:
            value = (record.value or b"")[:-1]
        else:
            value = None
        return _as_sent(world, value)

    def _as_sent(world: World, value: bytes | None) -> Expected:
        event = _decoded(world, value) if value is not None else _nan_mended(world)
        return Expected(same.framed(event), Accepted(event, same.schema_id))

    assert sorted(place[1] for place in queue.take_in(expected)) == [11, 12, 13, 14, 16]
    world.wait_until_committed()
    assert kappa.terminate() == 0
    world.verify_everything()


def _quoted(line: str) -> str:
    return "'" + line.replace("'", "'\\''") + "'"


def _decoded(world: World, value: bytes) -> dict:
    import io

    import fastavro

    event = fastavro.schemaless_reader(io.BytesIO(value[5:]), world.schemas.same.parsed, None)
    assert isinstance(event, dict)
    # `Accepted` has times as milliseconds.
    return {**event, "event_time": round(event["event_time"].timestamp() * 1000)}


def _nan_mended(world: World) -> dict:
    nan = next(record for record, fate in world.sent.rejected().values() if fate.reason == "non_finite_value")
    return {**_decoded(world, nan.value or b""), "value": 20.5, "quality": "UNCERTAIN"}


def _check_examples(output: str) -> None:
    """What the page shows of an answer is still what is answered, but for times."""
    text = PAGE.read_text()
    example = text[text.index("REASON  ") : text.index("\n…")]
    pattern = r"\d{4}-\d\d-\d\dT[\d:.]+Z"
    lines = [re.sub(pattern, "TIME", line) for line in example.splitlines()]
    found = [re.sub(pattern, "TIME", line) for line in output.splitlines()]
    for line in lines:
        assert line in found, f"the page shows {line!r}, which is not answered any more"
