"""A fault strikes while records flow; how the pipeline came through it, in figures."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from .faults import Fault
from .kappa_process import KappaProcess
from .producer import Production
from .stream import MixedStream
from .waiting import Found, Hopeless, NotYet, wait_until
from .wire import Wire
from .world import World

#: Above `limits.memory`: the program itself, its threads' stacks, librdkafka, and what the allocator keeps for later.
RSS_MARGIN = 256 << 20


@dataclass(frozen=True)
class Survived:
    """A line of the table of faults."""

    where: str
    fault: str
    lasted_seconds: float
    #: From its end until all that was sent before that is committed.
    recovered_seconds: float
    bound_seconds: float
    peak_rss_mib: float
    rss_bound_mib: float
    #: Of the log, gone through by `kappa verify` afterwards.
    records_verified: int
    #: How often it struck.
    hits: int

    def report(self) -> None:
        """For the table of docs/guarantees.md and the report of `make soak`."""
        file = os.environ.get("KAPPA_FAULTS_FILE")
        if file:
            with Path(file).open("a") as out:
                out.write(json.dumps(asdict(self)) + "\n")


@dataclass
class Ordeal:
    """A fault, how long it lasts, and within what time all must be well again."""

    where: str
    name: str
    fault: Callable[[], Fault]
    #: Beyond one `checkpoint.interval`, which every commit may wait for, and the time for what has piled up meanwhile.
    bound: float = 15.0
    seconds: float = 2.0
    #: In a pipeline of its own: it holds connections for so long that other faults would have to wait.
    alone: bool = False
    #: Statements for ClickHouse at its beginning and at its end; `{}` is the database.
    begins: str = ""
    ends: str = ""

    @property
    def id(self) -> str:
        return f"{self.where}: {self.name}"


@dataclass
class Subject:
    """A pipeline under load, with a wire to each service."""

    world: World
    kappa: KappaProcess
    stream: MixedStream
    production: Production
    wires: dict[str, Wire]

    @classmethod
    def start(cls, world: World, seed: int, native: bool, per_second: int) -> Subject:
        world.migrate()
        stack, stream = world.stack, world.stream(seed)
        kafka, registry = Wire.to(stack.brokers, "kafka"), Wire.to(stack.registry_url)
        s3, clickhouse = Wire.to(stack.s3_endpoint), Wire.to(stack.clickhouse_url)
        kappa = world.start({
            "kafka": {"brokers": kafka.url(stack.brokers), "fetcher": "native" if native else "librdkafka"},
            "registry": {"url": registry.url(stack.registry_url)},
            "object_store": {"endpoint": s3.url(stack.s3_endpoint)},
            "hot_store": {"url": clickhouse.url(stack.clickhouse_url), "emit_interval": "1s"},
            "checkpoint": {"interval": f"{int(INTERVAL_SECONDS * 1000)}ms"},
        })
        wires = {"kafka": kafka, "kafka (native fetcher)": kafka, "registry": registry, "s3": s3, "clickhouse": clickhouse}
        return cls(world, kappa, stream, Production(world.producer, stream.take, per_second, most=1 << 40), wires)

    def __enter__(self) -> Subject:
        try:
            self.kappa.wait_until_ready()
            self.production.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.production.stop()
        finally:
            self.close()

    def close(self) -> None:
        for wire in self.wires.values():
            wire.close()
        self.world.close()

    def finish(self, bound: float) -> None:
        """The end of the load and of the pipeline; then everything is compared with what was sent.

        What hangs since the last fault may be needed only now, so its bound holds here too.
        """
        self.production.stop()
        self.world.wait_until_committed(max(60, bound) * SLACK)
        assert self.kappa.terminate() == 0, self.kappa.log_tail()
        self.world.verify_everything()


#: The names in /status.
DEPENDENCIES = {
    "kafka": "kafka", "kafka (native fetcher)": "kafka", "registry": "registry", "s3": "object_store", "clickhouse": "hot_store",
}  # fmt: skip

#: Their `checkpoint.interval`: not so short that a busy machine has a backlog of segments anyway.
INTERVAL_SECONDS = 2.0
#: What piles up while a fault lasts is committed at least four times as fast as it came.
BACKLOG_SHARE = 0.25
#: How much longer a recovery may take where other tests have the same cores. `make faults` holds the bounds themselves.
SLACK = float(os.environ.get("KAPPA_FAULTS_SLACK", "1"))


def strike(subject: Subject, ordeal: Ordeal, during: Callable[[], None], lasts: float) -> Survived:
    """Fault, recovery, proof."""
    kappa, world = subject.kappa, subject.world
    kappa.peak_resident_bytes()
    started, failures = time.monotonic(), kappa.failures_of(DEPENDENCIES[ordeal.where])
    with subject.wires[ordeal.where].failing(ordeal.fault()) as fault, statements(world, ordeal):
        during()
        while time.monotonic() - started < lasts or fault.hits == 0:
            if fault.refuses_connections:
                # Nobody but those who are refused sees it.
                fault.hits = kappa.failures_of(DEPENDENCIES[ordeal.where]) - failures
            if time.monotonic() - started > lasts + 40:
                raise AssertionError(f"{ordeal.id} has not struck once")
            assert kappa.exit_code is None, f"kappa has ended with {kappa.exit_code}:\n{kappa.log_tail()}"
            time.sleep(0.1)
        assert kappa.is_alive(), "/healthz says no"
    healed = time.monotonic()
    with subject.production.paused():
        ends = world.sent.end_offsets()
    bound_seconds = (ordeal.bound + INTERVAL_SECONDS + BACKLOG_SHARE * lasts) * SLACK
    wait_until_committed_behind(subject, ends, bound_seconds)
    recovered = time.monotonic() - healed
    peak, bound = kappa.peak_resident_bytes(), int(kappa.status()["memory"]["budget_bytes"]) + RSS_MARGIN
    assert peak <= bound, f"{peak >> 20} MiB resident, {bound >> 20} MiB are allowed"
    return Survived(
        where=ordeal.where,
        fault=ordeal.name,
        lasted_seconds=round(healed - started, 1),
        recovered_seconds=round(recovered, 1),
        bound_seconds=bound_seconds,
        peak_rss_mib=round(peak / (1 << 20)),
        rss_bound_mib=round(bound / (1 << 20)),
        records_verified=verified_records(world),
        hits=fault.hits,
    )


@contextmanager
def statements(world: World, ordeal: Ordeal) -> Iterator[None]:
    if ordeal.begins:
        world.hot_store.execute(ordeal.begins.format(world.hot_store.database))
    try:
        yield
    finally:
        if ordeal.ends:
            world.hot_store.execute(ordeal.ends.format(world.hot_store.database))


def wait_until_committed_behind(subject: Subject, ends: dict[int, int], seconds: float) -> None:
    def look() -> Found[None] | NotYet:
        if subject.kappa.exit_code is not None:
            raise Hopeless(f"kappa has ended with {subject.kappa.exit_code}:\n{subject.kappa.log_tail()}")
        committed = subject.world.committed()
        behind = {partition: end for partition, end in ends.items() if committed.get(partition, 0) < end}
        return NotYet(f"committed {committed}") if behind else Found(None)

    wait_until(f"{ends} to be committed after the fault", seconds, look, every=0.2)


def verified_records(world: World) -> int:
    """`kappa verify` of the running pipeline finds no difference; so many records of the log it has gone through."""
    # On two busy cores it goes through half a million records a second, and more.
    patience = (60 + sum(world.end_offsets().values()) / 250_000) * SLACK
    result = world.kappa_verify("--json", timeout=patience)
    assert result.code == 0, f"kappa verify ended with {result.code}: {result.text}"
    checks = json.loads(result.stdout)["checks"]
    return next(check["examined"]["records"] for check in checks if "records" in check["examined"])
