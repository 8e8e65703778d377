"""Asking a provider over HTTP: bounded in time and size, no redirects, and every failure told apart in a few words."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping

import httpx2
import msgspec

from buri.control.oidc.fetcher import Answer, SilentError
from buri.control.oidc.metadata import NonsenseError
from buri.wire.badjson import BAD_JSON

TIMEOUT_S = 10.0
MAX_ANSWER_BYTES = 1 << 20


class HTTPFetcher:
    """The real one. Trusts the system's certificates and those of SSL_CERT_FILE."""

    def __init__(self) -> None:
        self._client = httpx2.AsyncClient(
            verify=ssl.create_default_context(), timeout=TIMEOUT_S, follow_redirects=False, trust_env=True
        )

    async def get(self, url: str, bearer: str = "") -> Answer:
        """See Fetcher."""
        headers = {"Accept": "application/json"}
        if bearer:
            headers["Authorization"] = f"Bearer {bearer}"
        return await self._ask(self._client.build_request("GET", url, headers=headers))

    async def post(self, url: str, form: Mapping[str, str], basic: tuple[str, str] | None) -> Answer:
        """See Fetcher."""
        request = self._client.build_request("POST", url, data=dict(form), headers={"Accept": "application/json"})
        if basic is not None:
            mark = base64.b64encode(":".join(basic).encode()).decode()
            request.headers["Authorization"] = f"Basic {mark}"
        return await self._ask(request)

    async def close(self) -> None:
        await self._client.aclose()

    async def _ask(self, request: httpx2.Request) -> Answer:
        try:
            response = await self._client.send(request, stream=True)
            try:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_ANSWER_BYTES:
                        raise NonsenseError("its answer is over 1 MiB")
            finally:
                await response.aclose()
        except httpx2.TimeoutException as error:
            raise SilentError(f"no answer within {TIMEOUT_S:.0f} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, OSError) as error:
            raise SilentError(_reason(error)) from error
        if response.status_code >= 500:
            raise SilentError(f"it answers {response.status_code}")
        if 300 <= response.status_code < 400:
            raise NonsenseError(f"it answers {response.status_code}, a redirect")
        try:
            return Answer(response.status_code, msgspec.json.decode(bytes(body), type=dict[str, object]))
        except BAD_JSON as error:
            raise NonsenseError(f"it answers {response.status_code} with what is no JSON object") from error


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return "its certificate is not trusted here"
    if "Name or service not known" in text or "Temporary failure in name resolution" in text:
        return "its name is not found"
    return "the connection failed" if not text else f"the connection failed: {text[:120]}"
