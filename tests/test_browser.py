"""Where the browser of the page's tests is installed, and where its tests are skipped."""

from __future__ import annotations

import os
import platform
import shutil

import pytest

from machine.exits import CannotRun
from tests.browser import install


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs on the PATH. An installation puts the browser there."""
    programs: list[str] = []

    def install_packages(packages: list[str], why: str, may: bool, say: object) -> None:
        if not may:
            raise CannotRun(f"{why}: run `apt-get install {packages[0]}` as root, then try again")
        programs.extend(packages)

    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.setattr(install, "install_packages", install_packages)
    return programs


def test_a_browser_that_is_there_is_required(there: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    there.append("chromium")

    assert install.main(["--no-install"]) == 0
    assert capsys.readouterr().out == "required\n"


@pytest.mark.usefixtures("there")
def test_a_missing_browser_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main(["--no-cluster"]) == 0
    assert capsys.readouterr().out == "required\n"


@pytest.mark.usefixtures("there")
def test_with_no_install_a_missing_browser_is_named_and_its_tests_are_skipped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert install.main(["--no-install"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "install chromium` as root" in printed.err
    assert "the tests of the page in a browser are skipped" in printed.err


@pytest.mark.usefixtures("there")
@pytest.mark.parametrize(("system", "user", "code"), [("debian", 0, 12), ("debian", 1000, 0), ("ubuntu", 0, 0)])
def test_only_on_debian_as_root_a_browser_that_cannot_be_installed_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: str, user: int, code: int
) -> None:
    def fails(*_: object) -> None:
        raise CannotRun("apt-get could not install chromium; log: /tmp/log")

    monkeypatch.setattr(install, "install_packages", fails)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": system})

    assert install.main([]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "kubehave: apt-get could not install chromium; log: /tmp/log\n" in printed.err
