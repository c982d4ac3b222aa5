"""The options of ./verify, and the check for usage errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults.files import named
from lessons.catalogue import SUITES
from machine.exits import USAGE, CannotRun


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kubehave", "the cluster under test")
    group.addoption("--context", metavar="NAME", help="Test this existing cluster. It is never deleted.")
    group.addoption("--keep", action="store_true", help="Keep the kind cluster of this run for the next one.")
    group.addoption("--remove", action="store_true", help="Remove the kept cluster, and do nothing else.")
    group.addoption("--node-image", metavar="NAME", help="Create the kind cluster from this node image.")
    group.addoption(
        "--no-install",
        action="store_true",
        help="Install nothing. If something is missing, the run ends with exit code 12. A run still makes .venv and, as far "
        "as this user may, creates /lib/modules where there is none and raises a low limit of inotify instances.",
    )
    group.addoption(
        "--allow-cluster-scoped-changes",
        action="store_true",
        help="With --context: let tests also create cluster-scoped objects (PersistentVolumes, StorageClasses, an "
        "IngressClass). For a moment they also change the default StorageClass, label a Node, and delete a mirror Pod in "
        "kube-system, which the kubelet makes again. All changes are undone. Nodes are never stopped or cut off.",
    )
    group.addoption(
        "--behavior",
        metavar="ID|TOPIC|DOCUMENT",
        action="append",
        default=[],
        help="Test the behavior with this id (the part after the slash is enough), or all of a topic or of a document. May be "
        "given several times. All tests of the chosen behaviors run, and only these behaviors are reported.",
    )
    group.addoption(
        "--rerun",
        metavar="FILE",
        help="Test again what was broken, inconclusive or not reached in an earlier report: its behaviors.json, or its folder. "
        "The new report is its own; nothing is merged.",
    )
    group.addoption(
        "--list",
        action="store_true",
        help="Print every behavior with its topic and its needs, and do nothing else. With --context or --keep also whether "
        "that cluster can show it; nothing is created there. With --behavior only the chosen ones.",
    )
    group.addoption(
        "--explain",
        metavar="ID",
        help="Print a behavior's claim, needs, tests, manifests and last verdict, and do nothing else.",
    )
    group.addoption(
        "--book",
        metavar="FILE",
        help="Write all claims with their manifests and their tests into this file, as a page, and do nothing else.",
    )
    group.addoption(
        "--list-images", action="store_true", help="Print every image that a run needs, and do nothing else."
    )
    group.addoption(
        "--print-rbac",
        action="store_true",
        help="Print the rights that a run needs (with --allow-cluster-scoped-changes those too), and do nothing else.",
    )
    group.addoption(
        "--faults",
        action="store_true",
        help="Print the ways in which --fault makes a cluster wrong, and do nothing else.",
    )
    group.addoption(
        "--fault",
        metavar="NAME",
        action="append",
        default=[],
        help="Make the run's own cluster wrong in this way (see --faults), test what is chosen, and make it right again. May be "
        "given several times.",
    )
    group.addoption(
        "--require-all",
        action="store_true",
        help='Treat "not observed" as an error.',
    )
    group.addoption(
        "--patience",
        metavar="FACTOR",
        type=float,
        default=1.0,
        help="Multiply every time limit, for slow clusters.",
    )
    group.addoption(
        "--report",
        metavar="DIR",
        help="The folder for behaviors.json and junit.xml (default: report/ in the checkout).",
    )
    group.addoption(
        "--compare",
        metavar="OLD NEW",
        action="append",
        help="Compare two reports (files, or folders that have a behaviors.json), and do nothing else. With --report DIR, "
        "write the comparison as a page, too: DIR/compare.html.",
    )
    group.addoption(
        "--shuffle",
        metavar="SEED",
        type=int,
        help="Run the tests in a random order; the same seed gives the same order.",
    )
    group.addoption(
        "--keep-namespaces",
        choices=("never", "on-failure", "always"),
        default="never",
        help="Keep the tests' namespaces, so that you can look inside (with --keep or --context).",
    )


def asks_a_cluster(config: pytest.Config) -> bool:
    """Whether this command line runs tests of the suites; --help and --collect-only, for example, contact nothing."""
    quiet = ("help", "version", "markers", "showfixtures", "show_fixtures_per_test", "collectonly", "setupplan")
    if any(config.getoption(name, False) for name in (*quiet, "cacheshow")):
        return False
    return any(path == SUITES or SUITES in path.parents or path in SUITES.parents for path in _paths(config))


def check_usage(config: pytest.Config) -> None:
    """Raise CannotRun for options that exclude each other, and for files that do not exist."""
    option = config.option
    if option.patience <= 0:
        raise CannotRun("--patience must be a number above 0", USAGE)
    if option.context and (option.keep or option.node_image):
        raise CannotRun("--keep and --node-image are for the run's own cluster; they do not go with --context", USAGE)
    if option.context and option.fault:
        raise CannotRun("--fault is for the run's own cluster; it does not go with --context", USAGE)
    for name in option.fault:
        named(name)
    if option.allow_cluster_scoped_changes and not option.context:
        raise CannotRun("--allow-cluster-scoped-changes needs --context", USAGE)
    if option.keep_namespaces != "never" and not (option.keep or option.context):
        raise CannotRun(
            "--keep-namespaces needs --keep or --context: otherwise they are deleted with the cluster",
            USAGE,
        )
    for arg, path in zip(config.args, _paths(config), strict=True):
        if not path.exists():
            raise CannotRun(f"no such file or folder: {arg.partition('::')[0]}", USAGE)


def _paths(config: pytest.Config) -> list[Path]:
    return [Path(config.invocation_params.dir, arg.partition("::")[0]).resolve() for arg in config.args]


def report_folder(config: pytest.Config) -> Path:
    """The folder for this run's report."""
    named = config.getoption("report")
    return Path(config.invocation_params.dir, named) if named else config.rootpath / "report"
