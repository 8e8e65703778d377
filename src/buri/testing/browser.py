"""A browser without a screen: it follows links and redirects, keeps cookies, and sends the forms that pages hold.

Over real HTTP, or straight into an ASGI application. What a page says is `text`; forms are found by their action.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from html.parser import HTMLParser

import httpx2

MAX_HOPS = 12


class Form:
    """A form of a page: where it goes, and its fields as they stand."""

    def __init__(self, action: str, method: str) -> None:
        self.action = action
        self.method = method.lower()
        self.fields: dict[str, str] = {}


class _Reader(HTMLParser):
    """Takes from HTML what a person would use: text, links, forms."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.links: list[tuple[str, str]] = []
        self.forms: list[Form] = []
        self.tags: set[str] = set()
        self._form: Form | None = None
        self._link: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.tags.add(tag)
        if tag == "form":
            self._form = Form(given.get("action", ""), given.get("method", "get"))
            self.forms.append(self._form)
        elif tag == "input" and self._form is not None and given.get("name"):
            if given.get("type") not in ("submit", "button"):
                self._form.fields[given["name"]] = given.get("value", "")
        elif tag == "a":
            self._link = given.get("href", "")
            self.links.append((self._link, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._form = None
        elif tag == "a":
            self._link = None

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._link is not None:
            href, text = self.links[-1]
            self.links[-1] = (href, text + data)


class Page:
    """What the browser shows."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.url = str(response.url)
        self.source = response.text
        reader = _Reader()
        reader.feed(self.source)
        self.text = " ".join(" ".join(reader.words).split())
        self.links = reader.links
        self.forms = reader.forms
        self.tags = reader.tags

    @property
    def path(self) -> str:
        return urllib.parse.urlsplit(self.url).path

    def form(self, action: str = "") -> Form:
        """The form whose action begins so. Raises LookupError."""
        for form in self.forms:
            if form.action.startswith(action) and form.action != "/logout":
                return form
        raise LookupError(f"no form for {action!r} on {self.url}: {self.text}")

    def link(self, text: str) -> str:
        """Where the link with these words leads. Raises LookupError."""
        for href, words in self.links:
            if text in words:
                return href
        raise LookupError(f"no link {text!r} on {self.url}: {self.text}")


class Browser:
    """One person's browser. `client` carries the requests and keeps the cookies."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client

    async def open(self, url: str) -> Page:
        """Go to an address and follow where it leads."""
        return await self._follow(await self.client.get(url))

    async def click(self, page: Page, text: str) -> Page:
        """Follow a link by its words."""
        return await self.open(urllib.parse.urljoin(page.url, page.link(text)))

    async def send(self, page: Page, action: str = "", values: Mapping[str, str] | None = None) -> Page:
        """Fill a form in and send it."""
        form = page.form(action)
        url = urllib.parse.urljoin(page.url, form.action)
        fields = {**form.fields, **(values or {})}
        if form.method == "get":
            return await self.open(f"{url}?{urllib.parse.urlencode(fields)}")
        parts = urllib.parse.urlsplit(page.url)
        origin = {"Origin": f"{parts.scheme}://{parts.netloc}", "Sec-Fetch-Site": "same-origin"}
        return await self._follow(await self.client.post(url, data=fields, headers=origin))

    async def _follow(self, response: httpx2.Response) -> Page:
        for _ in range(MAX_HOPS):
            if response.status_code not in (301, 302, 303):
                return Page(response)
            response = await self.client.get(urllib.parse.urljoin(str(response.url), response.headers["location"]))
        raise AssertionError(f"redirects without end at {response.url}")
