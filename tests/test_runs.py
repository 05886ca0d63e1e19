"""How a run starts, before it has any data."""

import pytest

from configs import default
from input_pipeline import runs
from tokenpose_jax import InputError


def test_a_missing_run_is_not_made_by_its_evaluation(tmp_path):
  with pytest.raises(InputError, match=r"there is no folder .*/run"):
    runs.evaluate(default.get_config(), str(tmp_path / "run"))
  assert not list(tmp_path.iterdir())


def test_a_run_without_a_checkpoint(tmp_path):
  with pytest.raises(InputError, match="holds no checkpoint"):
    runs.evaluate(default.get_config(), str(tmp_path))


def test_a_wrong_config_makes_no_work_directory(tmp_path):
  settings = default.get_config()
  settings.eval.checkpoint = "newest"
  with pytest.raises(InputError, match=r"eval\.checkpoint is 'newest'"):
    runs.train(settings, str(tmp_path / "run"))
  assert not list(tmp_path.iterdir())
