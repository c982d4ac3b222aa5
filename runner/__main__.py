"""`python -m runner`: runs pytest, and writes a report even if pytest rejects the command line."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

#: The options whose value may be the name of a folder.
NAMING = ("--report", "--rerun", "--behavior", "--explain")

#: The options that only print something: they begin no report, even if they are used in a wrong way.
PRINTING = ("--list", "--explain")


def joined(args: list[str]) -> list[str]:
    """The arguments, with --report and its folder as one word, and with other such options.

    pytest looks for its configuration before it knows these options, and takes a folder that exists for that of its tests.
    """
    words: list[str] = []
    for arg in args:
        if words and words[-1] in NAMING:
            words[-1] += f"={arg}"
        else:
            words.append(arg)
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
