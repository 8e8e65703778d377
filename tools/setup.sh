#!/bin/sh
# Make this checkout ready to run: system packages (as root, by apt), .venv with every locked dependency, the engine.
# Everything else stays inside the checkout. Prints one line per step; logs are in build/logs.
set -eu
cd "$(dirname "$0")/.."
say() { printf '%s\n' "buri: $*"; }
die() { say "$*" >&2; exit 1; }
if [ ! -w . ]; then
    [ -e .venv/.synced ] || die "this checkout belongs to $(stat -c %U .), who has not set it up: let them type \`make setup\`, or clone it yourself."
    say "this checkout belongs to $(stat -c %U .): using it as they set it up."
    exit 0
fi
mkdir -p build/logs
step() { # step NAME LOG COMMAND…: run it, keep its output in the log, show that it goes on
    name=$1 log=build/logs/$2.log; shift 2
    say "$name …"
    began=$(date +%s)
    "$@" >"$log" 2>&1 &
    child=$!
    (while sleep 15; do kill -0 $child 2>/dev/null || exit 0; say "  still at it ($(($(date +%s) - began)) s): $name"; done) &
    ticker=$!
    code=0; wait $child || code=$?
    kill $ticker 2>/dev/null || true
    if [ $code -ne 0 ]; then
        tail -n 15 "$log" >&2
        say "failed: $name (exit code $code). The whole log: $log" >&2
        return $code
    fi
}
have() { command -v "$1" >/dev/null 2>&1; }

if [ "$(uname -s)" != Linux ]; then
    say "this is $(uname -s): the demo, the namespace tests and the real peers need Linux and cannot run here; the Python tests do."
fi

# --- system packages ---------------------------------------------------------------------------------------------
missing=
need() { have "$1" || missing="$missing $2"; }
if [ "$(uname -s)" = Linux ]; then
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing="$missing python3-venv"
    need cc gcc; need ip iproute2; need nft nftables; need iperf3 iperf3; need ping iputils-ping
    need traceroute traceroute; need ethtool ethtool; need nsenter util-linux; need sysctl procps
    have cargo || [ -x "$HOME/.cargo/bin/cargo" ] || missing="$missing cargo-web"
fi
if [ -n "$missing" ]; then
    if have apt-get && [ "$(id -u)" = 0 ]; then
        step "fetching Debian's list of packages" apt-update apt-get update -q
        install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }
        step "installing$missing" apt-install install $missing || {
            # cargo-web is Debian 12's newer cargo; where a release has none, its plain cargo is new enough.
            missing=$(printf '%s' "$missing" | sed 's/cargo-web/cargo/')
            step "installing$missing" apt-install install $missing
        }
    elif have apt-get; then
        say "missing:$missing. Type: sudo apt-get install$missing   (going on without; what needs them will say so)"
    else
        say "missing (Debian's names):$missing. Install them with this system's package manager; going on without."
    fi
fi
[ -x "$HOME/.cargo/bin/cargo" ] && PATH="$HOME/.cargo/bin:$PATH" && export PATH

# --- Python ------------------------------------------------------------------------------------------------------
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed, python3 is $(python3 -V)."
if [ ! -x .venv/bin/uv ]; then
    step "making .venv" venv python3 -m venv .venv
    step "installing uv" uv .venv/bin/python -m pip install -q --disable-pip-version-check uv
fi
if [ ! -e .venv/.synced ] || [ uv.lock -nt .venv/.synced ]; then
    step "installing the locked Python packages" python-packages \
        env UV_PROJECT_ENVIRONMENT=.venv .venv/bin/uv sync --frozen --no-install-project --inexact
    touch .venv/.synced
fi
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n' "$PWD/src" >"$site/buri-checkout.pth"
entry() { # the console scripts that a wheel would install
    printf '#!%s/.venv/bin/python\nimport sys\nfrom %s import main\nsys.exit(main())\n' "$PWD" "$2" >".venv/bin/$1"
    chmod +x ".venv/bin/$1"
}
entry buri buri.cli.main
entry burid buri.roles.daemon

# --- the engine --------------------------------------------------------------------------------------------------
if [ "${1:-}" != --no-engine ]; then
    step "building the engine (Rust; a few minutes the first time)" engine .venv/bin/python tools/build_engine.py ||
        say "going on without the engine: what needs it will say so."
fi
