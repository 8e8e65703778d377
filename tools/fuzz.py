"""Fuzz every parser, Rust's and Python's, a while each, and print what was run and what was found (`make fuzz`).

Rust: cargo-fuzz with the stable toolchain and no sanitizer (the parsers are safe Rust; debug assertions and overflow checks
are on). Python: atheris. Both are libFuzzer, guided by coverage. All they need is installed below build/fuzz; the corpus
grows there from run to run. A finding is kept in build/fuzz/findings: mend what it shows, and put it into the target's
corpus (rust/fuzz/corpus, tests/fuzz/corpus), which the tests run for ever.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from build_engine import cargo

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build/fuzz"
CARGO_FUZZ = "0.13.2"
ATHERIS = "3.0.0"
LONGEST_INPUT_BYTES = 16384
LONGEST_RUN_S = 10  # of one input: more is a finding
FOUND = re.compile(
    r"panicked at|Uncaught Python exception|libFuzzer: (?:timeout|out-of-memory|deadly signal)|^ALARM", re.M
)


@dataclass
class Outcome:
    """What one target did."""

    side: str
    name: str
    executions: int = 0
    corpus: int = 0
    finding: str = ""


Program = tuple[
    str, list[str], list[str], dict[str, str]
]  # side, names, words before the flags (NAME stands for one), environment


def say(text: str) -> None:
    print(f"fuzz: {text}", flush=True)


def step(what: str, command: list[str], log: str, environment: dict[str, str]) -> bool:
    """Run a preparation; its output goes to a log."""
    say(f"{what} …")
    path = ROOT / "build/logs" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    if code != 0:
        say(f"{what} failed; {path.relative_to(ROOT)} tells why.")
    return code == 0


def prepare_rust() -> Program | str:
    """Build the engine's targets; a sentence when that cannot be."""
    tool = cargo()
    if tool is None:
        return "there is no cargo (Debian: cargo-web)."
    if shutil.which("c++") is None:
        return "there is no C++ compiler, which libFuzzer is built with (Debian: g++)."
    tools = PLACE / "cargo"
    path = f"{tools / 'bin'}:{Path(tool).parent}:{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, "CARGO_TARGET_DIR": str(PLACE / "target")}
    environment["RUSTC_WRAPPER"] = str(ROOT / "tools/fuzz_rustc.sh")
    if not (tools / "bin/cargo-fuzz").exists():
        install = [tool, "install", "--quiet", "--locked", "--root", str(tools), f"cargo-fuzz@{CARGO_FUZZ}"]
        if not step("installing cargo-fuzz into build/fuzz", install, "cargo-fuzz", environment):
            return "cargo-fuzz could not be installed."
    build = [tool, "fuzz", "build", "--fuzz-dir", str(ROOT / "rust/fuzz"), "--sanitizer", "none"]
    if not step("building the engine's targets (two minutes the first time)", build, "fuzz-build", environment):
        return "the engine's targets could not be built."
    programs = sorted((PLACE / "target").glob("*/release/engine"))
    seeds = PLACE / "seeds/rust"
    shutil.rmtree(seeds, ignore_errors=True)
    subprocess.run([programs[0]], env={**environment, "BURI_FUZZ_SEEDS": str(seeds)}, check=True, capture_output=True)
    names = sorted(path.name for path in seeds.iterdir())
    return "rust", names, [str(programs[0])], {**environment, "BURI_FUZZ_TARGET": "NAME"}


def prepare_python() -> Program | str:
    """Install atheris beside the checkout's Python; a sentence when that cannot be."""
    wheels = PLACE / "python"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}:{wheels}"}
    if not (wheels / "atheris").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        uv = [
            str(ROOT / ".venv/bin/uv"),
            "pip",
            "install",
            "--quiet",
            "--only-binary=:all:",
            "--python",
            sys.executable,
        ]
        install = [*(uv if Path(uv[0]).exists() else pip), "--target", str(wheels), f"atheris=={ATHERIS}"]
        if not step("installing atheris into build/fuzz", install, "atheris", dict(os.environ)):
            return f"atheris {ATHERIS} could not be installed for Python {sys.version_info.major}.{sys.version_info.minor}."
    seeds = PLACE / "seeds/python"
    shutil.rmtree(seeds, ignore_errors=True)
    write = f"from pathlib import Path; from fuzz.run import write_seeds; print(*write_seeds(Path({str(seeds)!r})))"
    names = subprocess.run(
        [sys.executable, "-c", write], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()
    return "python", names, [sys.executable, "-m", "fuzz.run", "NAME"], environment


def fuzz(program: Program, name: str, seconds: int) -> Outcome:
    """Run one target to its time or its first finding."""
    side, _, words, environment = program
    outcome = Outcome(side, name)
    corpus = PLACE / "corpus" / side / name
    findings = PLACE / "findings"
    for directory in (corpus, findings):
        directory.mkdir(parents=True, exist_ok=True)
    kept = ROOT / ("rust/fuzz/corpus" if side == "rust" else "tests/fuzz/corpus") / name
    command = [
        *(word.replace("NAME", name) for word in words),
        f"-max_total_time={seconds}",
        f"-max_len={LONGEST_INPUT_BYTES}",
        f"-timeout={LONGEST_RUN_S}",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-artifact_prefix={findings}/{side}-{name}-",
        str(corpus),
        str(PLACE / "seeds" / side / name),
        *([str(kept)] if kept.is_dir() else []),
    ]
    environment = {
        key: value.replace("NAME", name) if key == "BURI_FUZZ_TARGET" else value for key, value in environment.items()
    }
    done = subprocess.run(
        command, env=environment, cwd=PLACE, check=False, capture_output=True, text=True, errors="replace"
    )
    said = done.stdout + done.stderr
    (PLACE / f"{side}-{name}.log").write_text(said)
    if match := re.search(r"stat::number_of_executed_units:\s+(\d+)", said):
        outcome.executions = int(match.group(1))
    outcome.corpus = sum(1 for _ in corpus.iterdir())
    if done.returncode != 0:
        outcome.finding = _what(said) or f"ended with {done.returncode}"
    return outcome


def _what(said: str) -> str:
    """One line that names a finding."""
    match = FOUND.search(said)
    if match is None:
        return ""
    lines = [line.strip() for line in said[match.start() :].splitlines() if line.strip()][:12]
    if "Python" in match.group():
        return next((line for line in lines[1:] if re.match(r"\w+(\.\w+)*(Error|Exception|Warning)\b", line)), lines[0])
    return " ".join(lines[:2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="how long each target runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many run at a time")
    parser.add_argument("names", nargs="*", help="targets; none: all")
    options = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    programs: list[Program] = []
    left_out: list[str] = []
    prepare: dict[str, Callable[[], Program | str]] = {"Python": prepare_python, "Rust": prepare_rust}
    for side, make in prepare.items():
        if options.names and {name for program in programs for name in program[1]}.issuperset(options.names):
            break
        made = make()
        if isinstance(made, str):
            left_out.append(f"left out — {side}: {made}")
        else:
            programs.append(made)
    work = [
        (program, name) for program in programs for name in program[1] if not options.names or name in options.names
    ]
    if unknown := set(options.names) - {name for _, name in work}:
        say(f"there are no such targets: {', '.join(sorted(unknown))}.")
        return 2
    say(f"{len(work)} targets, {options.seconds} s each, {options.jobs} at a time …")

    def run(item: tuple[Program, str]) -> Outcome:
        outcome = fuzz(*item, options.seconds)
        what = f": {outcome.finding}" if outcome.finding else ""
        say(f"{outcome.side} {outcome.name}: {outcome.executions:,} executions{what}")
        return outcome

    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(run, work))
    print(f"\n{'target':34}{'executions':>14}{'corpus':>8}  finding")
    for outcome in outcomes:
        row = f"{outcome.side + ' ' + outcome.name:34}{outcome.executions:>14,}{outcome.corpus:>8}"
        print(f"{row}  {outcome.finding or '–'}")
    found = [outcome for outcome in outcomes if outcome.finding]
    print(
        f"{len(outcomes)} targets, {sum(outcome.executions for outcome in outcomes):,} executions, {len(found)} findings"
    )
    for line in left_out:
        print(line)
    if found:
        print("The inputs are in build/fuzz/findings, what they did in build/fuzz/<side>-<target>.log.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
