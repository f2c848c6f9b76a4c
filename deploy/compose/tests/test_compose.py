"""The compose file as Docker Compose reads it, and the files beside it: there is no container engine here to ask."""

from __future__ import annotations

import graphlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
COMPOSE = REPOSITORY / "deploy" / "compose"
sys.path.insert(0, str(REPOSITORY / "deploy" / "local"))

from kappa_stack import downloads  # noqa: E402

Service = dict
OWN_IMAGE = "kappa:local"
# Ends by itself, or serves nothing that could be asked.
WITHOUT_HEALTHCHECK = {"kafka-setup", "schema", "s3-setup", "migrate", "loadtest"}
TASKS = WITHOUT_HEALTHCHECK - {"loadtest"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what compose uses, so that no password of the person who runs the tests is read or made."""
    root = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("secrets", ".env", "tests", "__pycache__")
    shutil.copytree(COMPOSE, root / "deploy" / "compose", ignore=ignore)
    return root / "deploy" / "compose"


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Docker Compose's own loader, see compose-model/main.go."""
    binary = tmp_path_factory.mktemp("loader") / "compose-model"
    command = ["go", "build", "-mod=readonly", "-o", str(binary), "."]
    subprocess.run(command, cwd=COMPOSE / "tests" / "compose-model", check=True, timeout=300)
    return binary


def load(loader: Path, checkout: Path, *profiles: str, **variables: str) -> subprocess.CompletedProcess[str]:
    unwanted = ("KAPPA", "COMPOSE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    command = [str(loader), str(checkout / "compose.yaml"), *profiles]
    return subprocess.run(command, env=environment | variables, capture_output=True, text=True, timeout=60)


def init(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(checkout / "init"), *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def without_init(loader: Path, checkout: Path) -> subprocess.CompletedProcess[str]:
    assert not (checkout / ".env").exists()
    return load(loader, checkout)


@pytest.fixture(scope="module")
def initialised(checkout: Path, without_init: subprocess.CompletedProcess[str]) -> Path:
    result = init(checkout)
    assert result.returncode == 0, result.stderr
    return checkout


@pytest.fixture(scope="module")
def models(loader: Path, initialised: Path) -> dict[str, dict]:
    def model(*profiles: str) -> dict:
        result = load(loader, initialised, *profiles)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    return {"as it is": model(), "minimal": model("minimal"), "full": model("full")}


@pytest.fixture(scope="module")
def services(models: dict[str, dict]) -> dict[str, Service]:
    return models["full"]["services"]


def test_without_init_one_sentence_says_what_to_do(without_init: subprocess.CompletedProcess[str]) -> None:
    assert without_init.returncode == 1
    assert without_init.stderr.count("\n") == 1 and "run deploy/compose/init first" in without_init.stderr


def test_init_makes_secrets_once_and_for_its_owner_alone(initialised: Path) -> None:
    secrets = initialised / "secrets"
    assert secrets.stat().st_mode & 0o777 == 0o700
    before = {file.name: file.read_bytes() for file in secrets.iterdir()}
    assert init(initialised).returncode == 0
    assert {file.name: file.read_bytes() for file in secrets.iterdir()} == before, "init has changed what was there"
    passwords = [content for name, content in before.items() if name.endswith(("_password", "_secret_key"))]
    assert len(passwords) == len(set(passwords)) == 11
    assert all(re.fullmatch(rb"[A-Za-z0-9]{40}", password) for password in passwords)
    assert all(file.stat().st_mode & 0o222 == 0 for file in secrets.iterdir())
    # No password stands in a place that is not a secret; ClickHouse knows hashes only.
    public = [file for file in initialised.rglob("*") if file.is_file() and secrets not in file.parents]
    for password in passwords:
        assert all(password not in file.read_bytes() for file in public)
        assert password not in before["clickhouse_users.xml"]
    assert init(initialised, "--rotate").returncode == 2


def test_git_never_sees_a_secret() -> None:
    ignored = (COMPOSE / ".gitignore").read_text().split()
    assert {"/secrets/", "/.env"} <= set(ignored)


def test_each_secret_is_made_and_used(initialised: Path, models: dict[str, dict], services: dict[str, Service]) -> None:
    declared = {name: Path(secret["file"]) for name, secret in models["full"]["secrets"].items()}
    made = {file.name for file in (initialised / "secrets").iterdir()}
    assert all(file.name == name and file.is_file() for name, file in declared.items())
    used = {secret["source"] for service in services.values() for secret in service.get("secrets", [])}
    assert used == set(declared) == made


def test_no_service_has_a_password_that_is_not_its_own(services: dict[str, Service]) -> None:
    holders: dict[str, set[str]] = {}
    for name, service in services.items():
        for secret in service.get("secrets", []):
            holders.setdefault(secret["source"], set()).add(name)
    # Who serves a user knows how to recognise him; else it is that user alone.
    assert holders["kafka_admin_password"] == {"kafka", "kafka-setup"}
    assert holders["kafka_broker_password"] == {"kafka"}
    assert holders["kafka_kappa_password"] == {"kafka", "kappa"}
    assert holders["s3_admin_secret_key"] == {"s3", "s3-setup"}
    assert holders["s3_kappa_secret_key"] == {"kappa"}
    assert holders["clickhouse_migrator_password"] == {"migrate"}
    assert holders["clickhouse_writer_password"] == {"kappa"}
    assert holders["clickhouse_reader_password"] == {"dashboard", "grafana", "loadtest"}
    assert holders["grafana_admin_password"] == {"grafana"}


def test_no_secret_stands_in_a_variable_or_a_command(services: dict[str, Service]) -> None:
    for name, service in services.items():
        variables = {variable: value for variable, value in (service.get("environment") or {}).items()}
        for variable, value in variables.items():
            looks_secret = re.search(r"PASS|SECRET|TOKEN|CREDENTIAL", variable)
            assert not looks_secret or value.startswith("/run/secrets/"), f"{name}: {variable}"
        for argument in [*(service.get("command") or []), *(service.get("entrypoint") or [])]:
            assert not re.search(r"(password|secret)[=:](?!/run/secrets/)", argument.replace("-file=", "=")), f"{name}: {argument}"


def test_profiles(models: dict[str, dict]) -> None:
    everything = {
        "kafka", "kafka-setup", "registry", "schema", "s3", "s3-setup", "clickhouse", "migrate", "kappa", "dashboard",
        "loadtest", "prometheus", "alertmanager", "grafana",
    }  # fmt: skip
    assert set(models["full"]["services"]) == set(models["as it is"]["services"]) == everything
    assert set(models["minimal"]["services"]) == everything - {"loadtest", "prometheus", "alertmanager", "grafana"}


def test_every_container_is_confined(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and not service.get("cap_add"), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service.get("privileged") and not service.get("network_mode") and not service.get("pid"), name
        assert service["user"].split(":")[0] not in ("", "0", "root"), name
        limits = service["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0 and int(limits["memory"]) >= 64 << 20 and limits["pids"] > 0, name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name
        assert service["restart"] == ("no" if name in TASKS else "unless-stopped"), name


def test_every_service_has_a_health_check(services: dict[str, Service]) -> None:
    for name, service in services.items():
        check = service["healthcheck"]
        if name in WITHOUT_HEALTHCHECK:
            assert check == {"disable": True}, name
            continue
        assert check["test"][0] in ("CMD", "CMD-SHELL") and len(check["test"]) > 1, name
        assert {"interval", "timeout", "retries", "start_period"} <= check.keys(), name


def test_images_are_pinned_and_those_of_deploy_local(services: dict[str, Service]) -> None:
    versions = {}
    for name, service in services.items():
        image = service["image"]
        if image == OWN_IMAGE:
            assert service["build"]["dockerfile"] == "Dockerfile", name
            continue
        match = re.fullmatch(r"([a-z0-9./-]+):v?(\d+\.\d+\.\d+(?:\.\d+)?)(@sha256:[0-9a-f]{64})?", image)
        assert match, f"{name}: {image} is not pinned to a version"
        assert versions.setdefault(match[1], match[2]) == match[2]
    assert versions["apache/kafka"] == downloads.KAFKA_VERSION
    assert versions["apicurio/apicurio-registry"] == downloads.APICURIO_VERSION
    assert versions["versity/versitygw"] == downloads.VERSITYGW_VERSION


def test_ports_are_for_this_machine_alone_and_do_not_clash(services: dict[str, Service]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 9 and all(port["host_ip"] == "127.0.0.1" for port in ports)
    assert len({port["published"] for port in ports}) == len(ports)


def test_the_order_of_the_start(services: dict[str, Service]) -> None:
    graph = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert set(order) == set(services)
    for name, service in services.items():
        for awaited, how in service.get("depends_on", {}).items():
            expected = "service_completed_successfully" if awaited in TASKS else "service_healthy"
            assert how["condition"] == expected and how["required"], f"{name} waits for {awaited}"
            assert set(services[awaited]["profiles"]) >= set(service["profiles"]), f"{name} needs {awaited} in each profile"
    assert graph["kappa"] == {"kafka-setup", "schema", "s3-setup", "migrate"}


def test_who_can_reach_whom(services: dict[str, Service]) -> None:
    networks = {name: set(service["networks"]) for name, service in services.items()}

    def together(name: str) -> set[str]:
        return {other for other in networks if other != name and networks[other] & networks[name]}

    # The registry has no users: that nobody else is near is its access control.
    assert together("registry") == {"schema", "kappa", "loadtest"}
    assert together("kafka") == {"kafka-setup", "kappa", "loadtest"}
    assert together("s3") == {"s3-setup", "kappa", "loadtest"}
    assert together("alertmanager") == {"prometheus", "grafana"}
    # What one has to ask, one can.
    assert {"kafka", "registry", "s3", "clickhouse"} <= together("kappa")
    assert {"clickhouse", "kappa"} <= together("dashboard")
    assert {"clickhouse", "prometheus"} <= together("grafana")
    assert {"kappa", "alertmanager"} <= together("prometheus")


def test_mounts_are_read_only_files_of_the_repository_or_volumes(services: dict[str, Service], models: dict[str, dict]) -> None:
    declared = set(models["full"]["volumes"])
    for name, service in services.items():
        for mount in service.get("volumes", []):
            if mount["type"] == "volume":
                assert mount["source"] in declared, name
                continue
            assert mount["read_only"], f"{name}: {mount['source']}"
            # The copy that was loaded has the same places.
            below = Path(mount["source"]).as_posix().split("/deploy/", 1)[1]
            belongs_to_watching = below.split("/")[0] in ("prometheus", "alertmanager", "grafana")
            assert belongs_to_watching or (REPOSITORY / "deploy" / below).exists(), f"{name}: {below} is not there"


@cache
def kappa_toml() -> dict:
    return tomllib.loads((COMPOSE / "kappa" / "kappa.toml").read_text())


def test_the_pipeline_fits_its_container_and_its_files_are_mounted(services: dict[str, Service]) -> None:
    config, kappa = kappa_toml(), services["kappa"]
    assert config["limits"]["memory"] == "512MiB" and int(kappa["deploy"]["resources"]["limits"]["memory"]) == 1 << 30
    assert kappa["stop_grace_period"] == "45s", "more than pipeline.shutdown_timeout"
    mounted = {f"/run/secrets/{secret['source']}" for secret in kappa["secrets"]}
    named = set(re.findall(r"/run/secrets/[a-z0-9_.]+", (COMPOSE / "kappa" / "kappa.toml").read_text()))
    assert named | {kappa["environment"]["AWS_SECRET_ACCESS_KEY_FILE"]} == mounted


def test_the_load_generator_is_told_of_the_same_pipeline(initialised: Path) -> None:
    load = tomllib.loads((initialised / "secrets" / "loadtest.toml").read_text())
    config = kappa_toml()
    for section in ("registry", "archive", "dead_letter", "state", "object_store"):
        assert load[section] == config[section], section
    assert load["kafka"]["topic"] == config["kafka"]["topic"] and load["kafka"]["brokers"] == config["kafka"]["brokers"]
    properties = load["kafka"]["properties"]
    assert properties["sasl.username"] == "loadtest"
    assert properties["sasl.password"] == (initialised / "secrets" / "kafka_loadtest_password").read_text()
    assert load["hot_store"]["user"] == "reader" and load["hot_store"]["database"] == config["hot_store"]["database"]


@pytest.mark.parametrize("name", ["schema", "migrate", "kappa", "dashboard", "loadtest"])
def test_our_programs_know_their_arguments(services: dict[str, Service], name: str) -> None:
    program, *arguments = services[name]["command"]
    binary = Path(os.environ.get("KAPPA_BIN", REPOSITORY / "target" / "release" / "kappa")).with_name(program)
    if program == "kappa-dashboard" and not (REPOSITORY / "services" / "dashboard").exists():
        pytest.skip("there is no such program yet")
    assert binary.is_file(), f"{binary} is not there: build it with `cargo build --release`"
    # What stands before --help is read before the help is printed.
    result = subprocess.run([str(binary), *arguments, "--help"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 0 and "Usage:" in result.stdout, result.stderr


@pytest.mark.parametrize("script", ["init", "kafka/start", "kafka/setup", "s3/start", "s3/setup", "../image/entrypoint"])
def test_scripts_are_for_any_shell(script: str) -> None:
    file = COMPOSE / script
    assert file.read_text().startswith("#!/bin/sh\n") and os.access(file, os.X_OK)
    assert subprocess.run(["sh", "-n", str(file)], timeout=10).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", str(file)], timeout=60).returncode == 0


def test_the_image_takes_secrets_from_files(tmp_path: Path) -> None:
    entrypoint = REPOSITORY / "deploy" / "image" / "entrypoint"
    secret = tmp_path / "key"
    secret.write_text("a b$c\n")
    script = 'printf "%s|%s" "$AWS_SECRET_ACCESS_KEY" "${AWS_SECRET_ACCESS_KEY_FILE-none}"'

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "AWS_SECRET_ACCESS_KEY_FILE": str(file)}
        return subprocess.run([str(entrypoint), "sh", "-c", script], env=environment, capture_output=True, text=True)

    assert run(secret).stdout == "a b$c|none"
    missing = run(tmp_path / "nowhere")
    assert missing.returncode == 2 and "nowhere" in missing.stderr and missing.stdout == ""
