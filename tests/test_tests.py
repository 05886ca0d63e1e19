"""The tests themselves: what they may import and reach into."""

import ast

import pytest

from tests import fixtures

FILES = sorted((fixtures.ROOT / "tests").glob("*.py"))
# Of JAX, which has nothing public in its place; of named tuples, public.
ALLOWED = {"_asdict", "_cache_size", "_replace"}

files = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def imported(tree: ast.Module) -> set[str]:
  """The dotted names that a module imports."""
  names = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


@files
def test_no_test_imports_another(file):
  names = imported(ast.parse(file.read_text()))
  assert not [name for name in names if name.startswith("tests.test_")]


@files
def test_no_private_name_of_others_is_used(file):
  """Neither as an attribute nor by `monkeypatch.setattr`."""
  names = set()
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.Attribute) and not (
      isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    ):
      names.add(node.attr)
    elif (
      isinstance(node, ast.Call)
      and isinstance(node.func, ast.Attribute)
      and node.func.attr in ("setattr", "setitem", "delattr")
    ):
      names |= {a.value for a in node.args if isinstance(a, ast.Constant)}
  private = {n for n in names if str(n).startswith("_") and n[:2] != "__"}
  assert private <= ALLOWED
