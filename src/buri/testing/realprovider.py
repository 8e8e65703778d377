"""Real OpenID providers for tests: npm's `oidc-provider`, installed once into build/ by the first test that needs it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ROOT / "tests" / "interop" / "oidc"
PLACE = ROOT / "build" / "oidc-provider"
SECRET = "test secret/+"
LEAST_NODE = 20


def why_no_provider() -> str | None:
    """Why the real provider cannot run here; None when it can. Installs it when it is missing."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return "there is no node with npm: install Node.js 20 or newer for the real OpenID provider"
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.removeprefix("v").partition(".")[0]) < LEAST_NODE:
        return f"node is {version}, and the real OpenID provider needs {LEAST_NODE} or newer"
    wanted = (SOURCES / "package.json").read_text()
    mark = PLACE / "installed.json"
    if not mark.is_file() or mark.read_text() != wanted:
        PLACE.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCES / "package.json", PLACE)
        install = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        done = subprocess.run(install, cwd=PLACE, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"npm could not install the real OpenID provider: {done.stderr.strip()[-200:]}"
        mark.write_text(wanted)
    shutil.copy(SOURCES / "provider.js", PLACE)
    return None


@contextmanager
def real_providers(*redirect_uris: str) -> Iterator[tuple[list[str], subprocess.Popen[str]]]:
    """The issuers of running providers, one for each redirect URI, and their process."""
    with subprocess.Popen(
        ["node", str(PLACE / "provider.js"), *redirect_uris],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline()), process
        finally:
            process.kill()
