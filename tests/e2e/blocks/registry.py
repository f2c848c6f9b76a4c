"""The schema registry, spoken to over plain HTTP."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

TIMEOUT = 20


@dataclass(frozen=True)
class Registry:
    url: str

    def register(
        self, subject: str, schema: object, schema_type: str = "AVRO", references: Sequence[Mapping[str, object]] = ()
    ) -> int:
        """`references`: of other subjects, as {"name", "subject", "version"}."""
        body: dict[str, object] = {"schema": json.dumps(schema)}
        if schema_type != "AVRO":
            body["schemaType"] = schema_type
        if references:
            body["references"] = list(references)
        answer = requests.post(f"{self.url}/subjects/{subject}/versions", json=body, timeout=TIMEOUT)
        assert answer.ok, f"registering {subject} answered {answer.status_code}: {answer.text}"
        return int(answer.json()["id"])

    def versions(self, subject: str) -> list[int]:
        answer = requests.get(f"{self.url}/subjects/{subject}/versions", timeout=TIMEOUT)
        return [] if answer.status_code == 404 else list(answer.json())

    def version(self, subject: str, version: str) -> dict[str, Any]:
        answer = requests.get(f"{self.url}/subjects/{subject}/versions/{version}", timeout=TIMEOUT)
        assert answer.ok, f"{subject}:{version} answered {answer.status_code}: {answer.text}"
        return dict(answer.json())

    def set_rule(self, subject: str, rule: str) -> None:
        """How versions of the subject must be compatible: BACKWARD, FULL, NONE, ..."""
        answer = requests.put(f"{self.url}/config/{subject}", json={"compatibility": rule}, timeout=TIMEOUT)
        assert answer.ok, f"the rule {rule} for {subject} answered {answer.status_code}: {answer.text}"

    def guid_of(self, subject: str) -> uuid.UUID | None:
        """The GUID of the latest version; None where the registry has none or cannot look one up."""
        version = requests.get(f"{self.url}/subjects/{subject}/versions/latest", timeout=TIMEOUT).json()
        if "guid" not in version:
            return None
        guid = uuid.UUID(version["guid"])
        found = requests.get(f"{self.url}/schemas/guids/{guid}", timeout=TIMEOUT)
        return guid if found.ok else None
