"""What the checks find, as data, and how it is printed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

# ERROR: stops training or teaches it something wrong. WARNING: skipped or
# harmless, for information.
ERROR, WARNING = "error", "warning"
LONGEST = 500  # letters of a finding; files may hold anything


@dataclasses.dataclass(frozen=True)
class Kind:
  """A fault.

  Attributes:
    level: `ERROR` or `WARNING`.
    title: what is wrong, in the plural.
    advice: what to do.
  """

  level: str
  title: str
  advice: str


@dataclasses.dataclass(frozen=True)
class Finding:
  """One fault at one place.

  Attributes:
    kind: of the fault.
    split: of the data; "" where it is not of one split.
    place: the file, image or annotation, for the reader.
    detail: more on it; "" if there is none.
    image: file name, where a picture can be shown.
    annotation: COCO's dict, where a person can be drawn.
  """

  kind: Kind
  split: str
  place: str
  detail: str = ""
  image: str | None = None
  annotation: Mapping[str, Any] | None = None

  def __str__(self) -> str:
    parts = (self.split, self.place, self.detail)
    text = " ".join(": ".join(part for part in parts if part).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def table(findings: list[Finding], examples: int = 3) -> str:
  """One block per kind: errors first, the most frequent first.

  Args:
    findings: of any kinds.
    examples: of each kind, at most.
  """
  by_kind: dict[Kind, list[Finding]] = {}
  for finding in findings:
    by_kind.setdefault(finding.kind, []).append(finding)
  lines = []
  for kind, group in sorted(
    by_kind.items(), key=lambda item: (item[0].level, -len(item[1]))
  ):
    lines.append(f"{kind.level:8s}{len(group):7d}  {kind.title}")
    shown = "; ".join(map(str, group[:examples]))
    more = f" and {len(group) - examples} more" if len(group) > examples else ""
    lines += [f"{'':17s}{shown}{more}", f"{'':17s}-> {kind.advice}"]
  return "\n".join(lines)


def has_errors(findings: list[Finding]) -> bool:
  """Whether a training would stop, or learn something wrong."""
  return any(finding.kind.level == ERROR for finding in findings)
