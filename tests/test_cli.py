"""The command tokenpose, and what all commands share."""

import importlib.metadata
import os
import platform
import subprocess
import sys

import pytest

from tests import fixtures
from tokenpose_jax import InputError, ModelConfig, cli, recipes
from tokenpose_jax.models.published import PUBLISHED
from tokenpose_jax.version import __version__


def test_cost_of_a_published_network(capsys):
  cli.main(["cost", "tokenpose_s_v1", "--batch_size=2"])
  printed = capsys.readouterr().out
  assert "6,620,736" in printed
  assert "stored, 2" in printed
  cli.main(["cost", str(fixtures.ROOT / "configs/tokenpose_s_v1.py")])
  assert "6,620,736" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "says"),
  [
    (["tokenpose_x"], "'tokenpose_x' is not a published network"),
    (["nowhere.py"], "nowhere.py"),
    (["tokenpose_t", "--set", "depth"], "--set: 'depth' is not FIELD=VALUE"),
    (["tokenpose_t", "--set", "depht=3"], "model.depht is not a field"),
    (["tokenpose_t", "--batch_size=0"], "--batch_size is 0"),
  ],
)
def test_bad_input_is_one_line(arguments, says, capsys):
  with pytest.raises(SystemExit, match="1"):
    cli.main(["cost", *arguments])
  (line,) = capsys.readouterr().err.strip().splitlines()
  assert line.startswith("error: ")
  assert says in line


def test_changed_fields():
  small = recipes.change(
    PUBLISHED["tokenpose_t"], ["depth=2", "dtype=bfloat16"]
  )
  assert (small.depth, small.dtype) == (2, "bfloat16")
  wide = recipes.change(small, ["input_hw=(128, 96)"])
  assert wide.heatmap_hw == (32, 24)
  with pytest.raises(InputError, match="it must be at least 1"):
    recipes.change(small, ["depth=0"])
  assert recipes.load("tokenpose_l_d24_384x288").codec["sigma"] == 3
  assert isinstance(recipes.load("tokenpose_t").model, ModelConfig)


def test_help_and_version(capsys):
  for arguments in (["--help"], []):
    with pytest.raises(SystemExit, match="0"):
      cli.main(arguments)
    assert "convert" in capsys.readouterr().out
  with pytest.raises(SystemExit, match="0"):
    cli.main(["--version"])
  assert capsys.readouterr().out.strip() == __version__
  with pytest.raises(SystemExit, match="2"):
    cli.main(["trian"])


@pytest.mark.parametrize(
  ("arguments", "says"),
  [
    (["cost", "--bacth_size=1", "x"], "--bacth_size=1 (tokenpose cost --help "),
    (["convert", "improt"], "'improt' "),
    (["trian"], "'trian' "),
  ],
)
def test_what_cannot_be_parsed_is_one_line(capsys, arguments, says):
  with pytest.raises(SystemExit, match="2"):
    cli.main(arguments)
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ")
  assert says in line


def test_exit_codes(capsys):
  def refuse():
    raise InputError("no such thing")

  cli.run(lambda: None)
  with pytest.raises(SystemExit, match="3"):
    cli.run(lambda: 3)
  with pytest.raises(SystemExit, match="1"):
    cli.run(refuse)
  assert capsys.readouterr().err == "error: no such thing\n"


@pytest.mark.parametrize("flag", ["--help", "--confgi=x"])
def test_flags_do_not_wait_for_heavy_libraries(flag):
  program = (
    "import sys, runpy; sys.argv[1:] = [sys.argv[-1]]\n"
    "try: runpy.run_path('main.py', run_name='__main__')\n"
    "except SystemExit: pass\n"
    "heavy = {'tensorflow', 'clu', 'jax', 'flax'} & sys.modules.keys()\n"
    "assert not heavy, heavy"
  )
  done = subprocess.run(
    [sys.executable, "-c", program, flag],
    cwd=fixtures.ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
  ("product", "wanted"),
  [("Google Compute Engine\n", True), ("Standard PC (Q35)\n", False)],
)
def test_machines_of_google_cloud_are_told_apart(tmp_path, product, wanted):
  file = tmp_path / "product_name"
  file.write_text(product)
  assert cli.on_google_cloud(str(file)) is wanted
  assert cli.on_google_cloud(str(tmp_path / "missing")) is False


@pytest.mark.parametrize(("inside", "check"), [(True, None), (False, "true")])
def test_credentials_are_asked_for_inside_google_cloud(
  monkeypatch, inside, check
):
  monkeypatch.delenv("NO_GCE_CHECK")
  monkeypatch.setattr(cli, "on_google_cloud", lambda: inside)
  cli.quiet_tensorflow()
  assert os.environ.get("NO_GCE_CHECK") == check


FAULTS = """
import resource
import numpy as np
from tokenpose_jax import cli
cli.keep_freed_memory()
def faults():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(50_000_000, np.float32)
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="sets GNU's allocator"
)
@pytest.mark.parametrize("platforms", ["cpu", "tpu"])
def test_freed_memory_is_kept_for_the_next_step_on_cpus(platforms):
  """Else 200 MB come page by page: 48,828, or 97 large ones."""
  done = subprocess.run(
    [sys.executable, "-c", FAULTS],
    env=os.environ | {"JAX_PLATFORMS": platforms},
    capture_output=True,
    text=True,
    check=True,
  )
  assert (int(done.stdout) < 20) == (platforms == "cpu")


SHARED = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"


@pytest.mark.parametrize(
  ("platforms", "jaxlib", "given", "flags"),
  [
    ("cpu", "0.10.2", None, SHARED),
    ("cpu", "0.12.0.1", None, SHARED),
    ("cpu", "0.10.2", "--xla_own", "--xla_own"),
    ("cpu", "99.0.0", None, None),  # The option may be unknown there.
    ("tpu", "0.10.2", None, None),
  ],
)
def test_loops_are_shared_on_cpus(monkeypatch, platforms, jaxlib, given, flags):
  monkeypatch.setattr(importlib.metadata, "version", lambda _: jaxlib)
  monkeypatch.setenv("JAX_PLATFORMS", platforms)
  monkeypatch.setenv("XLA_FLAGS", given or "")
  cli.share_loops()
  assert os.environ["XLA_FLAGS"] == (flags or "")
