"""Pages from templates: everything is escaped, and every answer forbids what these pages do not need.

`layout.html` is the frame; a template gets `visit` (person, language, csrf), `t` (the texts) and what its view gives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from buri.web.texts import LANGUAGES
from buri.web.visit import Visit

HERE = Path(__file__).parent
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; script-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with none at all, browsers send forms of our own with `Origin: null`
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_templates = Environment(
    loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def page(visit: Visit, template: str, *, status: int = 200, **values: Any) -> Response:
    """Render a template for a visit."""
    text = _templates.get_template(template).render(visit=visit, t=visit.text, languages=LANGUAGES, **values)
    return visit.finish(HTMLResponse(text, status, headers=SECURITY_HEADERS))


def onward(visit: Visit, path: str) -> Response:
    """Go to another page of this server, by GET."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
    return visit.finish(RedirectResponse(path, 303, headers=headers))
