"""What a release needs: one version everywhere, a changelog and a citation file that their readers can read."""

import re
from pathlib import Path

import yaml

from medserl import __version__


def test_the_citation_is_of_this_version_and_has_what_cff_asks_for(root: Path) -> None:
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["cff-version"] == "1.2.0"
    assert citation["message"] and citation["title"] == "MedSeRL" and citation["license"] == "Apache-2.0"
    assert citation["authors"] and all("name" in who or "family-names" in who for who in citation["authors"])


def test_the_images_say_this_version(root: Path) -> None:
    said = re.findall(r"^ARG VERSION=(\S+)$", (root / "Dockerfile").read_text(), re.MULTILINE)
    assert said and set(said) == {__version__}


def test_the_changelog_begins_with_what_is_unreleased_under_known_headings(root: Path) -> None:
    text = (root / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert versions[0] == ("Unreleased", "")
    assert all(date for _, date in versions[1:])
    headings = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert headings <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_issue_forms_are_forms(root: Path) -> None:
    for name in ("bug.yml", "feature.yml"):
        form = yaml.safe_load((root / ".github/ISSUE_TEMPLATE" / name).read_text())
        assert form["name"] and form["description"], name
        ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
        assert len(ids) == len(set(ids)) > 0, name
        for part in form["body"]:
            assert part["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}, name
            assert part["attributes"].get("value" if part["type"] == "markdown" else "label"), name


def test_links_to_files_lead_somewhere(root: Path) -> None:
    pages = [root / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    lost = [
        f"{page.relative_to(root)}: {target}"
        for page in [*pages, *sorted((root / "docs").glob("*.md"))]
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text())
        if not (page.parent / target).exists()
    ]
    assert not lost
