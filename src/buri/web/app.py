"""The web room as one ASGI application: sign-in pages, the style sheet, and whatever routes another room adds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from buri.control.webport import SignInPort
from buri.web.render import HERE, SECURITY_HEADERS, page
from buri.web.signinpages import SignInPages
from buri.web.visit import Visit

_KINDS = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_log = logging.getLogger(__name__)


def make_app(port: SignInPort, *, routes: Sequence[BaseRoute] = (), console: str = "") -> Starlette:
    """The application. `routes` come before the sign-in's own; `console` is where administrators are sent."""

    async def not_found(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return page(Visit(request, port), "not_found.html", status=404)
        return PlainTextResponse(f"{error.detail}\n", error.status_code, headers=error.headers)

    async def failed(_request: Request, error: Exception) -> Response:
        # The path may hold a one-time link: it is not logged.
        _log.error("A page failed", exc_info=error)
        return PlainTextResponse("The server failed on this request; its log says why.\n", 500)

    return Starlette(
        routes=[*routes, *SignInPages(port, console=console).routes(), Route("/static/{name}", _static)],
        exception_handlers={HTTPException: not_found, Exception: failed},
    )


async def _static(request: Request) -> Response:
    """A file of `static/`, by its plain name."""
    name = request.path_params["name"]
    path = HERE / "static" / name
    kind = _KINDS.get(path.suffix)
    if kind is None or name not in {one.name for one in path.parent.iterdir()}:
        raise HTTPException(404)
    headers = {**SECURITY_HEADERS, "Cache-Control": "max-age=3600"}
    return Response(path.read_bytes(), media_type=kind, headers=headers)
