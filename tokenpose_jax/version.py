"""The software's version, said once, and those of other packages."""

import importlib.metadata
from collections.abc import Iterable

__version__ = "0.1.0"


def installed(packages: Iterable[str]) -> list[str]:
  """`NAME VERSION` of those that are installed.

  Args:
    packages: as the package index names them.
  """
  found = []
  for name in packages:
    try:
      found.append(f"{name} {importlib.metadata.version(name)}")
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
