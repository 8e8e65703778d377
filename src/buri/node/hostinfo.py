"""What a node tells its control server of its host (Hostinfo); read once, then only prefs and NetInfo change it."""

from __future__ import annotations

import functools
import os
import platform
import socket
from pathlib import Path

from buri import __version__
from buri.wire.tailcfg.node import Hostinfo, NetInfo

# Tailscale's control side shows and compares versions as MAJOR.MINOR.PATCH; ours says plainly that it is Buri's.
IPN_VERSION = f"{__version__}-buri"
APP = "buri"  # by this peers tell our nodes from others

_GO_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "riscv64": "riscv64"}


def host_name(wanted: str = "") -> str:
    """The name to be known by: `wanted`, or the host's own without its domain."""
    return wanted or socket.gethostname().partition(".")[0] or "localhost"


def collect(*, hostname: str, tags: tuple[str, ...], shields_up: bool, net_info: NetInfo | None) -> Hostinfo:
    """This host now."""
    release = _os_release()
    return Hostinfo(
        ipn_version=IPN_VERSION,
        os="linux",
        os_version=platform.release(),
        container=_in_container(),
        distro=release.get("ID", ""),
        distro_version=release.get("VERSION_ID", ""),
        distro_code_name=release.get("VERSION_CODENAME", ""),
        app=APP,
        hostname=host_name(hostname),
        shields_up=shields_up,
        no_logs_no_support=True,
        machine=platform.machine(),
        go_arch=_GO_ARCH.get(platform.machine(), platform.machine()),
        request_tags=list(tags) or None,
        net_info=net_info,
        userspace=False,
        userspace_router=False,
    )


@functools.cache
def _os_release() -> dict[str, str]:
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        pairs = (line.partition("=") for line in lines)
        return {name: value.strip("\"'") for name, _, value in pairs}
    return {}


@functools.cache
def _in_container() -> bool:
    return os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv")


def os_has_ipv6() -> bool:
    """Whether the kernel speaks IPv6 at all."""
    return os.path.exists("/proc/net/if_inet6")
