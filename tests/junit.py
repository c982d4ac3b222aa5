"""The stored file for CI: `python -m tests.junit` makes a sample run and writes tests/reports/junit.xml again."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from tests.stub_cluster import StubCluster
from tests.test_run import OUTCOMES, ended, start, write_sample

STORED = Path(__file__).parent / "reports" / "junit.xml"


def main() -> None:
    """Write the file, without the names of this machine and of its folders."""
    cluster = StubCluster()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "sample")
        write_sample(folder, OUTCOMES, {"lacks": ["node-network"]})
        run = ended(folder, start(folder, cluster.address))
        text = (run.report / "junit.xml").read_text(encoding="utf-8").replace(name, "")
    cluster.close()
    text = re.sub(r'hostname="[^"]*"', 'hostname="machine"', text)
    tree = ElementTree.ElementTree(ElementTree.fromstring(text))
    ElementTree.indent(tree)
    STORED.parent.mkdir(exist_ok=True)
    tree.write(STORED, encoding="utf-8", xml_declaration=True)


if __name__ == "__main__":
    main()
