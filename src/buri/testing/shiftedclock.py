"""A machine clock that is years off, for programs of the lab: a shim before libc (time namespaces leave the wall clock be)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

YEAR_S = 365 * 86400
_SOURCE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long shift_s(void) {
  const char *text = getenv("SHIFT_S");
  return text ? atol(text) : 0;
}
int clock_gettime(clockid_t id, struct timespec *now) {
  static int (*real)(clockid_t, struct timespec *);
  if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  int answer = real(id, now);
  if (!answer && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += shift_s();
  return answer;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  (void)zone;
  if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *where) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (where) *where = now.tv_sec;
  return now.tv_sec;
}
"""


def why_not() -> str | None:
    """One sentence why no clock can be shifted here, None when one can."""
    return None if shutil.which("cc") else "shifting a program's clock needs a C compiler (cc)."


def shifted(directory: Path, years: float) -> dict[str, str]:
    """The environment of a program whose wall clock is `years` ahead (behind: negative)."""
    library = directory / "shiftedclock.so"
    if not library.exists():
        source = directory / "shiftedclock.c"
        source.write_text(_SOURCE)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return {"LD_PRELOAD": str(library), "SHIFT_S": str(int(years * YEAR_S))}
