"""The README's reading path is what the catalogue says today. `python -m tests.test_readme` writes it anew."""

from pathlib import Path

from runner.catalogue import catalogue

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- reading path: python -m tests.test_readme -->\n", "<!-- end of the reading path -->"


def reading_path() -> str:
    """A row for each topic that has a suite, in the catalogue's order, and a line for those that have none yet."""
    topics: dict[str, list[bool]] = {}
    for behavior in catalogue().values():
        topics.setdefault(behavior.topic, []).append(behavior.planned)
    rows = ["| topic | behaviors | tests | manifests |", "|---|---|---|---|"]
    for topic, planned in topics.items():
        name = topic.replace(" ", "_")
        shown = planned.count(False)
        if shown:
            suite, folder = f"suites/test_{name}.py", f"manifests/{name}/"
            rows.append(f"| {topic} | {shown} | [{suite}]({suite}) | [{folder}]({folder}) |")
    waiting = [f"{topic} ({planned.count(True)})" for topic, planned in topics.items() if any(planned)]
    if waiting:
        rows += ["", f"Planned: {', '.join(waiting)}."]
    return "\n".join(rows) + "\n"


def _around(text: str) -> tuple[str, str, str]:
    before, _, rest = text.partition(BEGIN)
    path, _, after = rest.partition(END)
    return before, path, after


def test_the_reading_path_is_what_the_catalogue_says() -> None:
    assert _around(README.read_text())[1] == reading_path()


def test_every_link_of_the_readme_leads_somewhere() -> None:
    targets = [part.partition(")")[0] for part in README.read_text().split("](")[1:]]

    assert targets
    assert [target for target in targets if not (README.parent / target).exists()] == []


if __name__ == "__main__":
    before, _, after = _around(README.read_text())
    README.write_text(before + BEGIN + reading_path() + END + after)
