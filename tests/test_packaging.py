"""What an installation brings, said once."""

import pathlib
import re
import tomllib

from tests import fixtures
from tokenpose_jax.version import __version__

PROJECT = tomllib.loads((fixtures.ROOT / "pyproject.toml").read_text())


def requirements(file: str) -> set[str]:
  lines = (fixtures.ROOT / file).read_text().splitlines()
  return {
    line.replace('"', "'") for line in lines if line and line[0] not in "#-"
  }


def test_a_checkout_needs_the_library_and_its_extra_train():
  project = PROJECT["project"]
  wanted = {
    *project["dependencies"],
    *project["optional-dependencies"]["train"],
  }
  assert requirements("requirements.txt") == wanted


def test_the_library_needs_no_tensorflow():
  names = " ".join(PROJECT["project"]["dependencies"])
  assert not re.search("tensorflow|tensorboard|clu|torch", names)


def test_the_wheel_takes_the_weights_of_the_package():
  patterns = PROJECT["tool"]["setuptools"]["package-data"]["tokenpose_jax"]
  weights = pathlib.PurePath("pretrained/small/model.safetensors")
  assert any(weights.match(pattern) for pattern in patterns)


def test_the_changelog_has_this_version():
  changelog = (fixtures.ROOT / "CHANGELOG.md").read_text()
  assert f"## [{__version__}]" in changelog
