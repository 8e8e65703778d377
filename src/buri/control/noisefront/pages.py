"""What the control server says outside Noise: its key and a health check; the rest is the web room's (`extra`)."""

from __future__ import annotations

from html import escape

from buri.control.noisefront.exchange import HTML, JSON, Handler, Request, Response, sentence
from buri.core.keys import MachinePublic
from buri.wire.tailcfg.mapping import encode
from buri.wire.tailcfg.register import OverTLSPublicKeyResponse

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em}}
code{{background:#8882;padding:.2em .4em;border-radius:4px}}:root{{color-scheme:light dark}}</style>
<h1>{title}</h1>{body}</html>
"""


class Pages:
    """Routes by path. `tls`: this server is reached by TLS, so plain requests get the key and a redirect, nothing else."""

    def __init__(self, key: MachinePublic, url: str, *, tls: bool) -> None:
        self._key = encode(OverTLSPublicKeyResponse(public_key=str(key)))
        self._url = url
        self._tls = tls
        self.extra: Handler | None = None  # the web room answers what is not known here

    async def handle(self, request: Request) -> Response:
        """Answer one request."""
        if request.method not in ("GET", "HEAD") and self.extra is None:
            return sentence(405, "Only GET is answered here.")
        path = request.path
        if path == "/key":
            return Response(body=self._key, content_type=JSON)
        if self._tls and not request.secure:
            return Response(status=301, headers=(("Location", self._url + request.target),))
        if path == "/health":
            return Response(body=b'{"status":"ok"}', content_type=JSON)
        if self.extra is not None:
            return await self.extra(request)
        if path == "/":
            join = f"buri up --login-server {self._url}"
            body = f"<p>This is a Buri control server. A machine joins it with</p><p><code>{escape(join)}</code></p>"
            return _page("Buri", body)
        return sentence(404, "There is nothing here.")


def _page(title: str, body: str, status: int = 200) -> Response:
    headers = (
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    )
    return Response(status, _PAGE.format(title=escape(title), body=body).encode(), HTML, headers)
