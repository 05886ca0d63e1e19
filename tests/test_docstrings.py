"""Public functions say what goes in, what comes out, and what they raise."""

import ast
import re
from collections.abc import Iterator

from tests import fixtures

SOURCES = [
  path
  for folder in ("tokenpose_jax", "input_pipeline")
  for path in sorted((fixtures.ROOT / folder).rglob("*.py"))
]
BARE = {"np.ndarray", "jax.Array", "Array", "AnyArray"}


def public() -> Iterator[tuple[str, str, ast.FunctionDef]]:
  """(place, docstring, function) of every public function and method."""
  for path in SOURCES:
    tree = ast.parse(path.read_text())
    scopes = [("", tree)] + [
      (f"{node.name}.", node)
      for node in tree.body
      if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    for prefix, scope in scopes:
      for node in scope.body:
        if not isinstance(node, ast.FunctionDef):
          continue
        text = ast.get_docstring(node) or ""
        if node.name in ("__init__", "__post_init__"):
          # What they raise may stand with the class.
          text += ast.get_docstring(scope) or ""
        elif node.name.startswith("_"):
          continue
        name = f"{path.relative_to(fixtures.ROOT)}: {prefix}{node.name}"
        yield name, text, node


def own_raises(node: ast.AST) -> Iterator[str]:
  """Names of what a function's own body raises, inner functions left out."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
      continue
    if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
      yield ast.unparse(child.exc.func)
    yield from own_raises(child)


def test_there_are_many():
  assert len(list(public())) > 250


def test_what_is_raised_is_said():
  silent = [
    name
    for name, text, node in public()
    if {"InputError", "ValueError"} & set(own_raises(node))
    and "Raises:" not in text
  ]
  assert silent == []


def test_arrays_have_a_shape():
  """In the annotation, or in the words of the argument."""
  shapeless = []
  for name, text, node in public():
    if "synthetic" in name:
      continue
    for argument in [*node.args.args, *node.args.kwonlyargs]:
      kind = ast.unparse(argument.annotation) if argument.annotation else ""
      words = re.search(rf"{argument.arg}: \(", text)
      if kind in BARE and not words:
        shapeless.append(f"{name}({argument.arg})")
    kind = ast.unparse(node.returns) if node.returns else ""
    if kind in BARE and "(" not in text:
      shapeless.append(f"{name} ->")
  assert shapeless == []
