"""Tables in Markdown, and the parts of a page that programs write."""

import re
from collections.abc import Iterable, Sequence


def markdown(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A table.

  Args:
    titles: of the columns.
    rows: as many cells each.

  Raises:
    ValueError: a row has another number of cells.
  """
  lines = [list(titles), ["---"] * len(titles), *map(list, rows)]
  if any(len(line) != len(titles) for line in lines):
    raise ValueError(f"a row has other columns than {list(titles)}")
  return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace(page: str, name: str, text: str) -> str:
  """A page with another text between the marks of that name.

  Args:
    page: has the lines `<!-- NAME -->` and `<!-- end of NAME -->`.
    name: of the part.
    text: the new part.

  Raises:
    ValueError: the page has no such part.
  """
  begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
  pattern = re.escape(begin) + ".*?" + re.escape(end)
  new, count = re.subn(
    pattern, lambda _: f"{begin}{text.rstrip()}\n{end}", page, flags=re.DOTALL
  )
  if count != 1:
    raise ValueError(f"the page has {count} parts {name!r}")
  return new
