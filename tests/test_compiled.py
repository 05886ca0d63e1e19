"""Where compiled programs are kept, and that a start uses them."""

import os
import pathlib

import jax
import pytest

from tests.command_line import call, demo, drawn
from tokenpose_jax import compiled


@pytest.fixture
def _folder(monkeypatch):
  """JAX's own setting is put back, and none is in the environment."""
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  names = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
  )
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.mark.parametrize(
  ("platform", "environment", "wanted"),
  [
    ("linux", {}, "~/.cache"),
    ("linux", {"XDG_CACHE_HOME": "/scratch/me"}, "/scratch/me"),
    ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache"),
    ("darwin", {"XDG_CACHE_HOME": "/scratch/me"}, "~/Library/Caches"),
    ("win32", {}, "~/AppData/Local"),
  ],
)
def test_the_rules_of_the_system(platform, environment, wanted):
  folder = compiled.user_folder(platform, environment)
  assert folder == os.path.expanduser(f"{wanted}/tokenpose_jax")


@pytest.mark.usefixtures("_folder")
def test_the_folder_is_the_users_alone(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
  compiled.keep()
  folder = compiled.user_folder()
  assert jax.config.jax_compilation_cache_dir == folder
  assert os.stat(folder).st_mode & 0o077 == 0
  assert not os.listdir(folder)


@pytest.mark.usefixtures("_folder")
def test_where_nothing_can_be_written_nothing_is_kept(tmp_path, caplog):
  before = jax.config.jax_compilation_cache_dir
  (tmp_path / "file").write_text("")
  compiled.keep(str(tmp_path / "file" / "below"))
  compiled.keep("")
  assert jax.config.jax_compilation_cache_dir == before
  (record,) = caplog.records
  assert "programs are compiled at every start" in record.getMessage()


@pytest.mark.usefixtures("_folder")
def test_the_variable_of_jax_goes_first(tmp_path, monkeypatch):
  before = jax.config.jax_compilation_cache_dir
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
  compiled.keep(str(tmp_path / "ours"))
  assert jax.config.jax_compilation_cache_dir == before
  assert not (tmp_path / "ours").exists()


def programs(folder: pathlib.Path) -> dict[str, int]:
  """The times at which the programs of a folder were written."""
  return {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}


def test_the_second_start_compiles_no_step(tmp_path):
  """Nor does a start whose cache is a file, which is no error."""
  folder = drawn(tmp_path)
  caches = {"JAX_COMPILATION_CACHE_DIR": "", "XDG_CACHE_HOME": str(tmp_path)}

  def start(name: str, **places: str) -> str:
    done = call(
      *demo(folder, tmp_path / name, "--config.train.steps=1"), **places
    )
    assert done.returncode == 0, done.stderr
    return done.stderr

  start("cold", **caches)
  first = programs(tmp_path / "tokenpose_jax")
  assert any(name.startswith("jit_train_step") for name in first)
  start("warm", **caches)
  second = programs(tmp_path / "tokenpose_jax")
  assert {n for n in second if "train_step" in n} == {
    n for n in first if "train_step" in n
  }
  (tmp_path / "nowhere").write_text("")
  said = start("no", **caches | {"XDG_CACHE_HOME": str(tmp_path / "nowhere")})
  assert "programs are compiled at every start" in said
