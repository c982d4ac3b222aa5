"""`python -m runner`: runs pytest, and writes a report even if pytest rejects the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

#: Options of the suite whose values may be the names of files or folders, and how many they have.
PATHS = {"--report": 1, "--rerun": 1, "--behavior": 1, "--explain": 1, "--book": 1, "--compare": 2}

#: The options that only print something: they begin no report, even if they are used in a wrong way.
PRINTING = ("--list", "--explain", "--book", "--compare", "--faults")


def joined(args: list[str]) -> list[str]:
    """The arguments, with each file or folder of an option of the suite in one word with the option.

    pytest looks for its configuration before it knows these options, and takes a path that exists for that of its tests.
    `--compare OLD NEW` becomes `--compare=OLD --compare=NEW`.
    """
    words: list[str] = []
    option, missing = "", 0
    for arg in args:
        name, equals, _ = arg.partition("=")
        if missing > 0 and not arg.startswith("-"):
            if words[-1] == option:
                words.pop()
            words.append(f"{option}={arg}")
            missing -= 1
        else:
            words.append(arg)
            option, missing = name, PATHS.get(name, 0) - len(equals)
    return words


def main(args: list[str]) -> int:
    """Run pytest with these arguments and return its exit code."""
    code = int(pytest.main(joined(args)))
    # pytest must import its plugins first: it does not rewrite the assertions of modules that are already imported.
    from machine.exits import USAGE
    from machine.progress import line_of
    from runner.report import Report

    if code == USAGE and not Report.begun and not any(arg.partition("=")[0] in PRINTING for arg in args):
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        parser.add_argument("--report", nargs="?", default=Path("report"), const=Path("report"), type=Path)
        report = Report(parser.parse_known_args(args)[0].report)
        reason = "usage error: pytest rejected the command line"
        try:
            report.begin()
            report.write(run={"exit_code": code, "reason": reason}, behaviors=[], tests={})
        except OSError as error:
            print(f"kubehave: the report cannot be written: {line_of(error)}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
