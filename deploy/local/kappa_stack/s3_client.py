"""The few signed S3 requests that the stack itself makes (AWS Signature V4)."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import time
import urllib.parse
from dataclasses import dataclass


@dataclass(frozen=True)
class S3Client:
    host: str
    port: int
    access_key: str
    secret_key: str
    region: str

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout: float = 10) -> tuple[int, bytes]:
        """Status and body of one path-style request without query parameters."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        try:
            path = urllib.parse.quote(path)
            signed = self._signed_headers(method, path, body, headers or {})
            connection.request(method, path, body=body, headers=signed)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _signed_headers(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> dict[str, str]:
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        day = timestamp[:8]
        payload_hash = hashlib.sha256(body).hexdigest()
        to_sign = {
            **{name.lower(): value for name, value in headers.items()},
            "host": f"{self.host}:{self.port}",
            "x-amz-content-sha256": payload_hash,
            "x-amz-date": timestamp,
        }
        names = ";".join(sorted(to_sign))
        canonical_headers = "".join(f"{name}:{to_sign[name]}\n" for name in sorted(to_sign))
        canonical = "\n".join([method, path, "", canonical_headers, names, payload_hash])
        scope = f"{day}/{self.region}/s3/aws4_request"
        text = "\n".join(["AWS4-HMAC-SHA256", timestamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = f"AWS4{self.secret_key}".encode()
        for part in (day, self.region, "s3", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.new(key, text.encode(), "sha256").hexdigest()
        authorization = f"AWS4-HMAC-SHA256 Credential={self.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {**to_sign, "authorization": authorization}
