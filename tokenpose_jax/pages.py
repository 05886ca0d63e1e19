"""Pages that need nothing else: what their templates have in common."""

from typing import Any

import jinja2

from tokenpose_jax.terminal import printable


def environment(package: str) -> jinja2.Environment:
  """Where a page's template is, with text of strangers made harmless.

  Args:
    package: that has the template.
  """
  return jinja2.Environment(
    loader=jinja2.PackageLoader(package, "."),
    autoescape=True,
    finalize=_seen,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )


def _seen(value: Any) -> Any:
  """What a page shows of a value: marks of direction are spelled."""
  is_markup = hasattr(value, "__html__")  # of the page itself
  if isinstance(value, str) and not is_markup:
    return printable(value, "\n")
  return value
