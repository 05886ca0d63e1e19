"""A file of weights to export, and commands run in this process."""

import argparse

import tokenpose_jax as tp
from tests import tiny
from tokenpose_jax import convert

# Heatmaps of 16 x 16: those that are narrower than DARK's window of 15 cannot
# be exported to ONNX.
SQUARE = tiny.model().to_dict() | {
  "input_hw": (64, 64),
  "heatmap_hw": (),
  "patch_hw": (4, 4),
  "heads": 8,
}


def weights_file(path, fields, change=lambda weights: weights) -> str:
  """Writes fresh weights of a network, changed; the path as text."""
  model = tp.ModelConfig.of(fields)
  weights = change(tp.init(model, seed=0, scheme="fan_in"))
  convert.write_state_dict(str(path), tp.export_torch(model, *weights))
  return str(path)


def tiny_file(folder) -> str:
  """Weights of a tiny network whose heads the file alone tells."""
  fields = {"heads": 8, "attention_scale": "width"}
  return weights_file(
    folder / "tiny.safetensors", tiny.model().to_dict() | fields
  )


def command(module, *arguments):
  """What a sub-command's module returns for these arguments."""
  parser = argparse.ArgumentParser()
  module.add_arguments(parser)
  return module.run(parser.parse_args([str(a) for a in arguments]))
