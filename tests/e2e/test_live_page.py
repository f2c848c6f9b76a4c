"""The live page in a real browser, on the real stack: it shows what was sent, says what is away, and nothing gets in."""

from __future__ import annotations

import math
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from blocks.live_page import Browser, LivePage, driven
from blocks.records import Accepted, PlannedRecord
from blocks.schemas import READER_DEFAULTS
from blocks.stack import REPOSITORY, Stack
from blocks.waiting import wait_for
from blocks.world import World, WorldMaker

HOSTILE = "<img src=x onerror=alert(1)>'\"; DROP TABLE sensors; --\\'\t%"
SENSORS = ["boiler-1", "boiler-2", HOSTILE]
SITES = {"boiler-1": "north", "boiler-2": "south", HOSTILE: "north"}
MINUTE = 60_000
# Minutes before the current one in which `boiler-1` is silent.
GAP = range(6, 9)
MINUTES = 14


class Scene:
    """A pipeline, what was sent through it, and the page that shows it."""

    def __init__(self, world: World, page: LivePage, events: list[dict[str, Any]]) -> None:
        self.world = world
        self.page = page
        self.events = events

    def of(self, sensor: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["sensor_id"] == sensor]


def _events(now_ms: int) -> Iterator[dict[str, Any]]:
    """Steady series of the last quarter of an hour, one with a gap and two spikes."""
    minute = now_ms // MINUTE * MINUTE
    for back in range(MINUTES, -1, -1):
        for second in range(0, 60, 2):
            at = minute - back * MINUTE + second * 1000
            if at > now_ms:
                return
            for index, sensor in enumerate(SENSORS):
                if sensor == "boiler-1" and back in GAP:
                    continue
                is_spike = sensor == "boiler-1" and (back, second) in {(3, 20), (1, 40)}
                value = 900.0 if is_spike else 50.0 + index + math.sin(second + back * 7.0)
                quality = "BAD" if sensor == "boiler-2" and second == 0 else "GOOD"
                yield {
                    **READER_DEFAULTS, "sensor_id": sensor, "metric": "TEMPERATURE", "event_time": at + index,
                    "value": value, "quality": quality, "site": SITES[sensor],
                }  # fmt: skip


@pytest.fixture
def scene(make_world: WorldMaker, tmp_path: Path) -> Iterator[Scene]:
    world = make_world(partitions=2)
    kappa = world.start()
    kappa.wait_until_ready()
    events = list(_events(int(time.time() * 1000)))
    schema, planned = world.schemas.same, []
    for event in events:
        fate = Accepted(event, schema.schema_id, is_spike=event["value"] == 900.0)
        partition = SENSORS.index(event["sensor_id"]) % 2
        key = event["sensor_id"].encode()
        planned.append(PlannedRecord(partition, key, schema.framed(event), (), event["event_time"] + 5, fate))
    world.producer.send(planned)
    broken = world.stream(seed=900, broken_share=1.0).take(60)
    world.producer.send(broken)
    world.wait_until_committed()
    page = LivePage(world.stack.clickhouse_url, world.hot_store.database, [f"http://127.0.0.1:{kappa.http_port}"], tmp_path / "page.log")
    yield Scene(world, page, events)
    assert page.close() == 0, page.log_file.read_text()


@pytest.fixture
def browser(scene: Scene) -> Iterator[Browser]:
    with driven() as driver:
        yield Browser(scene.page, driver)


def test_the_page_shows_what_was_sent_and_says_what_is_away(
    scene: Scene, browser: Browser, controlled_stack: Stack
) -> None:
    """One stack and one browser for all views: starting them is what takes the time."""
    _check_answers(scene)
    _check_that_nothing_gets_in(scene)
    _check_fleet(scene, browser)
    _check_sensor(scene, browser)
    _check_hostile_sensor(scene, browser)
    _check_anomalies(scene, browser)
    _check_pipeline(scene, browser)
    _check_keys(browser)
    # That nobody has measured anything is an answer, which the browser calls an error.
    assert [complaint for complaint in browser.complaints() if "sensor=nobody" not in complaint] == []
    _check_outage(scene, browser, controlled_stack)
    _check_phone(scene)


def _check_answers(scene: Scene) -> None:
    """What the page is made of, number by number."""
    for sensor in SENSORS:
        sent = scene.of(sensor)
        first, last = sent[0]["event_time"] // MINUTE * MINUTE, sent[-1]["event_time"] // MINUTE * MINUTE
        answer = scene.page.answer("series", sensor=sensor, **{"from": first, "to": last + MINUTE})
        columns, quality = answer["columns"], answer["quality"]
        assert (answer["site"], answer["metric"], columns["step_ms"]) == (SITES[sensor], "TEMPERATURE", MINUTE)
        values: dict[int, list[float]] = defaultdict(list)
        for event in sent:
            values[event["event_time"] // MINUTE * MINUTE].append(event["value"])
        for index, mean in enumerate(columns["mean"]):
            at = columns["from_ms"] + index * columns["step_ms"]
            expected = values.get(at)
            if expected is None:
                assert (mean, columns["min"][index], columns["events"][index]) == (None, None, 0), f"{sensor} at {at}: a gap is a gap"
                continue
            found = (columns["min"][index], columns["max"][index], columns["events"][index])
            assert found == (min(expected), max(expected), len(expected)), f"{sensor} at {at}"
            assert mean == pytest.approx(sum(expected) / len(expected), rel=1e-9)
        bad = sum(event["quality"] == "BAD" for event in sent)
        assert (quality["events"], quality["bad"], quality["windows"]) == (len(sent), bad, len(values))
        gap = len(GAP) if sensor == "boiler-1" else 0
        assert quality["windows_expected"] - quality["windows"] == gap
    spikes = {event["event_time"] for event in scene.events if event["value"] == 900.0}
    flagged = {anomaly["time_ms"] for anomaly in scene.page.answer("anomalies", min_score=6)["anomalies"]}
    assert len(spikes) == 2 and spikes <= flagged
    assert [found["sensor"] for found in scene.page.answer("sensors", q="BOILER")["sensors"]] == ["boiler-1", "boiler-2"]
    # A hair is cut out of the middle of a series: still only what lies in it.
    middle = scene.of("boiler-2")[100]["event_time"]
    answer = scene.page.answer("series", sensor="boiler-2", **{"from": middle, "to": middle + 1})
    assert len(answer["columns"]["mean"]) == 1


HOSTILE_TEXTS = [
    "' OR 1=1 --", "\\' OR 1=1 --", "\\", "'; DROP TABLE windows_1m; --", "') UNION ALL SELECT name FROM system.tables --",
    "{sensor:Identifier}", "`", '"', "%", "_", "\t", "\n", "\0", "\\N", "\\0", "{}", "$sensor", "\u202e", "😀", "a" * 256,
    "&param_sensor=boiler-1", "boiler-1' AND sleep(3)='", "1) OR (1=1",
]  # fmt: skip


def _check_that_nothing_gets_in(scene: Scene) -> None:
    """Texts stay texts, on the real engine: a hostile one finds nothing, breaks nothing, and is found where it was sent."""
    before = scene.world.hot_store.tables()
    for text in HOSTILE_TEXTS:
        assert scene.page.ask("series", sensor=text).status_code == 404, text
        assert scene.page.ask("series", sensor="boiler-1", metric=text).status_code == 404, text
        for name in ("metric", "kind", "site"):
            assert scene.page.answer("anomalies", **{name: text})["anomalies"] == [], (name, text)
        found = [row["sensor"] for row in scene.page.answer("sensors", q=text)["sensors"]]
        assert all(text.casefold() in sensor.casefold() for sensor in found), (text, found)
    assert [row["sensor"] for row in scene.page.answer("sensors", q="<img")["sensors"]] == [HOSTILE]
    assert scene.page.answer("series", sensor=HOSTILE)["sensor"] == HOSTILE
    for name, wrong in [("min_score", "1 OR 1"), ("limit", "9999"), ("from", "0"), ("param_sensor", "x"), ("readonly", "0")]:
        assert scene.page.ask("anomalies", **{name: wrong}).status_code == 400, (name, wrong)
    assert scene.world.hot_store.tables() == before


def _check_fleet(scene: Scene, browser: Browser) -> None:
    browser.open("#/fleet")
    browser.wait_for_texts("#connection-text", ["Live"])
    now = int(time.time() * 1000)
    recent = [event for event in scene.events if event["event_time"] >= now // MINUTE * MINUTE - 2 * MINUTE]
    assert {event["sensor_id"] for event in recent} == set(SENSORS), "the test took too long to look at what was sent"
    browser.wait_for_texts(".site-name", ["north", "south"])
    assert browser.texts(".tile-number")[1] == str(len(SENSORS))
    health = browser.driver.execute_script("return [...document.querySelectorAll('.site')].map((site) => site.dataset.health)")
    # One of two sensors of the north has spiked; the south has bad quality.
    assert health[0] == "alert" and health[1] in ("watch", "alert"), health
    assert browser.texts("tbody th a")[0] == "boiler-1"
    live = scene.page.answer("live")
    counted = Counter(event["event_time"] // MINUTE * MINUTE for event in scene.events)
    shown = {minute["time_ms"]: minute["events"] for minute in live["fleet"]["minutes"]}
    assert {at: shown.get(at) for at in counted} == dict(counted)


def _check_sensor(scene: Scene, browser: Browser) -> None:
    browser.driver.execute_script("document.body.dispatchEvent(new KeyboardEvent('keydown', { key: '/', bubbles: true }))")
    wait_for("the search to have the focus", 20, lambda: browser.driver.switch_to.active_element.get_attribute("id") == "search", browser.visible_text)
    search = browser.driver.switch_to.active_element
    search.send_keys("oiler")
    browser.wait_for_texts(".found-sensor", ["boiler-1", "boiler-2"])
    search.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
    browser.wait_for_texts("h1", ["boiler-1"])
    browser.wait_for(".u-over")
    browser.wait_for_text("3 minutes without data")
    label = browser.all(".chart")[0].get_attribute("aria-label")
    assert "highest 900" in label and "2 flagged" in label, label
    browser.click(".as-table summary")
    rows = browser.texts(".as-table tbody tr")
    assert sum("no data" in row for row in rows) >= len(GAP)
    # The chart's data: gaps are null, so the line breaks there.
    assert browser.texts(".panel tbody .kind") == ["spike", "spike"]
    browser.click("[data-span='900']")
    wait_for("the address to carry the range", 10, lambda: "span=900" in browser.driver.current_url, lambda: browser.driver.current_url)


def _check_hostile_sensor(scene: Scene, browser: Browser) -> None:
    browser.open("#/sensor?sensor=nobody")
    browser.wait_for_text('nothing was ever measured by a sensor "nobody"')
    browser.open("#/fleet")
    browser.wait_for(".site")
    browser.open("#/sensor?" + _query({"sensor": HOSTILE}))
    browser.wait_for_texts("h1", [HOSTILE])
    assert browser.all("main img") == [], "the name of a sensor has become an element"


def _check_anomalies(scene: Scene, browser: Browser) -> None:
    browser.open("#/anomalies?" + _query({"min_score": 6, "site": "north"}))
    browser.wait_for("tbody tr")
    flagged = scene.page.answer("anomalies", min_score=6, site="north")["anomalies"]
    assert browser.texts("tbody td:nth-child(2)") == [anomaly["sensor"] for anomaly in flagged]
    # One more comes while we look.
    event = {**scene.of("boiler-1")[-1], "event_time": int(time.time() * 1000), "value": 987.0}
    schema = scene.world.schemas.same
    fate = Accepted(event, schema.schema_id, is_spike=True)
    scene.world.producer.send([PlannedRecord(0, b"boiler-1", schema.framed(event), (), event["event_time"], fate)])
    wait_for(
        "the new anomaly to come by itself", 30,
        lambda: len(browser.texts("tbody tr")) == len(flagged) + 1 and "987" in browser.texts("tbody tr")[0], browser.visible_text,
    )  # fmt: skip
    browser.click("tbody td a")
    browser.wait_for_texts("h1", ["boiler-1"])
    assert f"at={event['event_time']}" in browser.driver.current_url
    browser.open("#/anomalies?" + _query({"site": "south", "kind": "flatline"}))
    browser.wait_for_text("No anomalies match.")


def _check_pipeline(scene: Scene, browser: Browser) -> None:
    browser.open("#/pipeline")
    rejected = Counter(fate.reason for _, fate in scene.world.sent.rejected().values())
    browser.wait_for(".reasons summary")
    expected = sorted((reason.replace("_", " "), str(count)) for reason, count in rejected.items())
    found = zip(browser.texts(".reason"), browser.texts(".reasons summary .number"), strict=True)
    assert sorted(found) == expected
    browser.wait_for(".samples li p")
    places = {place for place, _ in scene.world.sent.rejected().items()}
    samples = [sample for pipeline in scene.page.answer("dead-letters") for sample in pipeline["samples"]]
    assert {sample["reason"] for sample in samples} == set(rejected)
    for sample in samples:
        place = (sample["partition"], sample["offset"])
        record, fate = scene.world.sent.rejected()[place]
        value = record.value or b""
        assert place in places and sample["reason"] == fate.reason
        assert (sample["value_bytes"], sample["value_hex"] or "") == (len(value), value[:48].hex())
    positions = browser.texts("table tbody td:nth-child(3)")
    ends = scene.world.end_offsets()
    assert [int(text.replace(",", "")) for text in positions] == [ends[partition] for partition in sorted(ends)]
    assert browser.texts(".dependencies strong") == ["kafka", "registry", "object store", "hot store"]


def _check_keys(browser: Browser) -> None:
    browser.driver.find_element(By.TAG_NAME, "body").send_keys("1")
    browser.wait_for(".sites")
    current = browser.driver.execute_script("return document.querySelector('[aria-current]').textContent")
    assert current == "Fleet"
    # Everything that can be used has a name.
    nameless = browser.driver.execute_script(
        "return [...document.querySelectorAll('a, button, input, select')].filter((element) =>"
        " !(element.textContent.trim() || element.getAttribute('aria-label') || element.closest('label'))).map((element) => element.outerHTML)"
    )
    assert nameless == []


def _check_outage(scene: Scene, browser: Browser, stack: Stack) -> None:
    with stack.without("clickhouse"):
        browser.wait_for_text("ClickHouse gives no answer", 40)
        assert browser.texts("#connection-text") == ["ClickHouse away"]
        assert "ClickHouse gives no answer" in browser.texts("#announcer")[0], "it is read out, too"
        assert browser.texts(".site-name") != [], "what was known stays"
        assert scene.page.ask("anomalies").status_code == 503
    browser.wait_for_no_text("ClickHouse gives no answer", 60)
    browser.wait_for_texts("#connection-text", ["Live"])
    scene.world.processes[0].kill()
    browser.wait_for_text("does not answer", 40)


def _check_phone(scene: Scene) -> None:
    with driven(390, 844, scale=2, dark=True) as driver:
        phone = Browser(scene.page, driver)
        for view in ("fleet", "sensor?" + _query({"sensor": "boiler-2"}), "anomalies", "pipeline"):
            phone.open(f"#/{view}")
            phone.wait_for("main h1")
            overflow = driver.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow <= 0, f"{view} is {overflow} pixels too wide for a phone"
        page_colour = driver.execute_script("return getComputedStyle(document.documentElement).backgroundColor")
        assert page_colour == "rgb(13, 18, 25)", "a dark system gets a dark page"


def _query(parameters: dict[str, Any]) -> str:
    return urlencode(parameters)


def test_help_says_what_it_needs() -> None:
    binary = REPOSITORY / "target" / "release" / "kappa-dashboard"
    told = subprocess.run([binary, "--help"], capture_output=True, text=True, check=True, timeout=20).stdout
    for needed in ("GRANT SELECT", "--clickhouse", "--pipeline", "Examples:", "KAPPA_DASHBOARD_LISTEN"):
        assert needed in told, needed
    wrong = subprocess.run([binary, "--listen", "nowhere"], capture_output=True, text=True, check=False, timeout=20)
    assert wrong.returncode == 2
