# make demo     a mesh of two homes and a server in network namespaces, shown and measured (KEEP=1 leaves it running)
# make test     everything that can run here: unit, sim, Rust, namespaces, real peers
# make check    format, lint, types, import arrows, purity, stubs
# make captures CAPTURES=FOLDER   policies with what Tailscale's service compiled from them (or BURI_POLICY_CAPTURES)
# make engine   build the packet engine into src/buri/engine
# make peers    build the real peers into build/peers/bin
# make bench-tunnel   the tunnel beside tailscaled, wireguard-go and none (root; ROUNDS=5 LENGTH=5)
# make fuzz     every parser fuzzed for a minute (SECONDS=60), findings listed
# make bench-control  a load of nodes on buri server (NODES=100,300,1000), and on headscale where it is (HEADSCALE=100,300)
# make bench-startup  how soon burid is there and what it takes idle, beside tailscaled (root; ROUNDS=5)
SHELL := /bin/sh
PY := .venv/bin/python
CARGO := PATH="$$HOME/.cargo/bin:$$PATH" cargo
.PHONY: captures demo test fuzz check setup engine peers bench-tunnel bench-control bench-startup format clean test-rust test-python

setup:
	@tools/setup.sh

engine:
	@$(PY) tools/build_engine.py

peers: setup
	@tools/peers.sh

ROUNDS ?= 5
LENGTH ?= 5
NODES ?= 100,300,1000
HEADSCALE ?= $(if $(shell command -v headscale),100)

bench-tunnel: setup engine peers
	@$(PY) bench/tunnel.py --rounds $(ROUNDS) --seconds $(LENGTH)

bench-control: setup
	@$(PY) bench/control.py --nodes $(NODES) --headscale "$(HEADSCALE)"

bench-startup: setup engine peers
	@$(PY) bench/startup.py --rounds $(ROUNDS)

demo: setup
	@$(PY) tools/demo.py $(if $(KEEP),--keep)

test: setup
	@tools/peers.sh || true
	@$(PY) tools/test.py

SECONDS ?= 60

fuzz: setup
	@$(PY) tools/fuzz.py --seconds $(SECONDS)

check: setup
	@$(PY) tools/check.py

CAPTURES ?= $(BURI_POLICY_CAPTURES)

captures: setup
	@test -n "$(CAPTURES)" || { echo "Name a folder of KIND.jsonl.xz files: make captures CAPTURES=FOLDER" >&2; exit 2; }
	@BURI_POLICY_CAPTURES="$(CAPTURES)" $(PY) -m pytest -q -rf tests/unit/policy/test_captures.py

format: setup
	@.venv/bin/ruff format src tests bench tools
	@.venv/bin/ruff check --fix src tests bench tools
	@$(CARGO) fmt

clean:
	rm -rf build target .mypy_cache .ruff_cache .pytest_cache src/buri/engine/*.so
