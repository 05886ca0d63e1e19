"""What the checks find, and how it is told."""

import dataclasses

# Would a training stop at it, or learn what is wrong? Else what is wrong is
# skipped, or harmless, and only to be known.
ERROR, WARNING = "error", "warning"


@dataclasses.dataclass(frozen=True)
class Kind:
  """A fault: its level, its name in the table, and what to do."""

  level: str
  title: str
  advice: str


@dataclasses.dataclass(frozen=True)
class Finding:
  """One fault at one place.

  Attributes:
    kind: of the fault.
    where: the file, image or annotation, for the reader.
    image: file name, where a picture can be shown.
    annotation: COCO's dict, where a person can be drawn.
  """

  kind: Kind
  where: str
  image: str | None = None
  annotation: dict | None = None


def table(findings: list[Finding], examples: int = 3) -> str:
  """One block a kind: errors first, the most frequent first."""
  by_kind: dict[Kind, list[Finding]] = {}
  for finding in findings:
    by_kind.setdefault(finding.kind, []).append(finding)
  lines = []
  for kind, found in sorted(
    by_kind.items(), key=lambda item: (item[0].level, -len(item[1]))
  ):
    lines.append(f"{kind.level:8s}{len(found):7d}  {kind.title}")
    shown = "; ".join(finding.where for finding in found[:examples])
    more = f" and {len(found) - examples} more" if len(found) > examples else ""
    lines += [f"{'':17s}{shown}{more}", f"{'':17s}-> {kind.advice}"]
  return "\n".join(lines)


def has_errors(findings: list[Finding]) -> bool:
  return any(finding.kind.level == ERROR for finding in findings)
