"""A real Prometheus on the repository's own configuration and rules."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
import yaml

from .kappa_process import free_port
from .stack import REPOSITORY
from .waiting import Found, NotYet, wait_until

CONFIGURATION = REPOSITORY / "deploy" / "prometheus"
TIMEOUT = 30


def tool(name: str) -> str:
    """The path of one of the programs that come with Prometheus and Alertmanager."""
    path = shutil.which(name)
    assert path, f"{name} is not there (Debian: apt-get install prometheus prometheus-alertmanager)"
    return path


class Prometheus:
    """Scrapes and evaluates each second what in earnest is done every 15; alerts go nowhere. All else is as deployed."""

    def __init__(self, directory: Path, targets: Sequence[str]) -> None:
        files = directory / "configuration"
        shutil.copytree(CONFIGURATION, files)
        config = yaml.safe_load((files / "prometheus.yml").read_text())
        config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["scrape_configs"] = [job for job in config["scrape_configs"] if job["job_name"] == "kappa"]
        del config["alerting"]
        (files / "prometheus.yml").write_text(yaml.safe_dump(config))
        (files / "targets" / "kappa.yml").write_text(yaml.safe_dump([{"targets": list(targets)}]))
        self._url = f"http://127.0.0.1:{free_port()}"
        self._log_file = directory / "prometheus.log"
        with self._log_file.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={files / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address={self._url.removeprefix('http://')}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Prometheus:
        try:
            wait_until("Prometheus to be ready", 45, self._look_whether_ready)
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def _look_whether_ready(self) -> Found[None] | NotYet:
        if self._process.poll() is not None:
            raise AssertionError(f"Prometheus has ended; it says:\n{self._log_file.read_text(errors='replace')[-4000:]}")
        answer = requests.get(f"{self._url}/-/ready", timeout=TIMEOUT)
        return Found(None) if answer.ok else NotYet(answer.text.strip())

    def _stop(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _ask(self, path: str, parameters: dict[str, Any]) -> Any:
        answer = requests.get(f"{self._url}/api/v1/{path}", params=parameters, timeout=TIMEOUT)
        assert answer.ok, f"Prometheus answered {answer.status_code} to {parameters}: {answer.text.strip()}"
        return answer.json()["data"]

    def has_data(self, expression: str, instant: bool) -> bool:
        """Whether the expression gives at least one number, now, or at some moment of the last minute."""
        now = time.time()
        if instant:
            found = self._ask("query", {"query": expression, "time": now})["result"]
            return any(sample["value"][1] != "NaN" for sample in found)
        found = self._ask("query_range", {"query": expression, "start": now - 60, "end": now, "step": "2s"})["result"]
        return any(value != "NaN" for series in found for _, value in series["values"])

    def label_values(self, metric: str, label: str) -> list[str]:
        return self._ask(f"label/{label}/values", {"match[]": metric})

    def rules(self) -> list[dict[str, Any]]:
        return [rule for group in self._ask("rules", {})["groups"] for rule in group["rules"]]
