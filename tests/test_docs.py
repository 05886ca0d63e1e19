"""What code and docs point at exists."""

import re

import pytest

from tests import fixtures

FOLDERS = (
  "benchmarks",
  "configs",
  "docs",
  "input_pipeline",
  "tests",
  "tokenpose_jax",
)
FILES = [
  *fixtures.ROOT.glob("*.md"),
  *fixtures.ROOT.glob("*.py"),
  *(
    path
    for folder in FOLDERS
    for path in (fixtures.ROOT / folder).rglob("*")
    if path.suffix in {".py", ".md"}
  ),
]


def test_every_cited_section_of_the_reference_exists():
  text = (fixtures.ROOT / "docs" / "reference.md").read_text()
  sections = set(re.findall(r"^##+ (\d(?:\.\d)?) ", text, re.MULTILINE))
  assert {"2.4", "4.5", "5.1", "6"} <= sections
  cited = {}
  for path in FILES:
    # `reference 2.4`, `reference 5.4, 5.5`, also broken over two lines.
    for match in re.finditer(
      r"\b[Rr]eference(?:\s+#)?\s+(\d(?:\.\d)?(?:,\s+\d(?:\.\d)?)*)",
      path.read_text(),
    ):
      for section in re.split(r",\s+", match[1]):
        cited[section] = path.name
  assert len(cited) > 15
  assert not {s: name for s, name in cited.items() if s not in sections}


def test_every_cited_section_on_the_fixtures_exists():
  text = (fixtures.STORED / "README.md").read_text()
  sections = set(re.findall(r"^## (.+)$", text.lower(), re.MULTILINE))
  cited = {
    " ".join(match[1].split())
    for path in FILES
    for match in re.finditer(
      r"tests/parity/README\.md, ([\w\s]+)", path.read_text()
    )
  }
  assert {"weight rule", "tolerances"} <= cited
  assert cited <= sections


@pytest.mark.parametrize(
  "page", [path for path in FILES if path.suffix == ".md"], ids=lambda p: p.name
)
def test_links_to_files_lead_somewhere(page):
  links = re.findall(r"\]\((?!http|#|mailto)([^)#]+)", page.read_text())
  assert [link for link in links if not (page.parent / link).exists()] == []
