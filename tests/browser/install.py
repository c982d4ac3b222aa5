"""Installs the browser of the page's tests where this may be done, and prints "required" if it is there.

`./selftest` puts what is printed into KUBEHAVE_BROWSER. On Debian, as root and without --no-install, a browser that cannot be
installed is an error. Elsewhere the tests that need one are skipped.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys

from machine.exits import CannotRun
from machine.packages import install_packages

#: Debian's package, and its program.
CHROMIUM = "chromium"


def main(arguments: list[str]) -> int:
    """Make sure of the browser. Returns the exit code."""
    may = "--no-install" not in arguments
    if shutil.which(CHROMIUM) is None:
        try:
            install_packages([CHROMIUM], "the tests of the page need a browser", may, _say)
        except CannotRun as refusal:
            _say(str(refusal))
            if may and os.geteuid() == 0 and platform.freedesktop_os_release().get("ID") == "debian":
                return refusal.exit_code
            _say("the tests of the page in a browser are skipped")
            return 0
    print("required")
    return 0


def _say(line: str) -> None:
    print(f"kubehave: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
