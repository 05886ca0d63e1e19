"""YOLOX through ONNX Runtime, on a model whose output is known."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tokenpose_jax import InputError
from tokenpose_jax.predict.detector import Yolox

SIDE = 64  # of the model's input: 64 + 16 + 4 anchors


def model(path, output, shape=(1, 3, SIDE, SIDE), dimensions=None):
  """An ONNX file that gives `output`, plus 0 times the mean of its input."""
  nodes = [
    helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
    helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    helper.make_node("Add", ["heads", "nothing"], ["output"]),
  ]
  graph = helper.make_graph(
    nodes,
    "detector",
    [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)],
    [
      helper.make_tensor_value_info(
        "output", TensorProto.FLOAT, dimensions or output.shape
      )
    ],
    [
      numpy_helper.from_array(np.float32(0), "zero"),
      numpy_helper.from_array(output.astype(np.float32), "heads"),
    ],
  )
  made = helper.make_model(
    graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
  )
  onnx.save(made, path)
  return str(path)


def heads(classes=2):
  """Two people and a thing; all in raw form, of an image of 64 x 64."""
  raw = np.full((1, 84, 5 + classes), -3.0)
  raw[..., 4:] = 0
  # Row 2, column 3 at stride 8: center (3.5, 2.5) x 8, size 16 x 24.
  raw[0, 2 * 8 + 3] = [0.5, 0.5, np.log(2), np.log(3), 0.9, 0.8, 0.1]
  # Almost the same box at the stride of 16: suppressed.
  raw[0, 64 + 1 * 4 + 1] = [0.75, 0.25, 0, np.log(1.5), 0.9, 0.7, 0.1]
  # Elsewhere, at 32: another person.
  raw[0, 80 + 3] = [0.5, 0.5, 0, 0, 0.5, 0.9, 0.1]
  # A thing.
  raw[0, 0] = [0.5, 0.5, 0, 0, 0.9, 0.0, 0.9]
  return raw


def test_boxes_of_raw_heads(tmp_path):
  detector = Yolox(model(tmp_path / "d.onnx", heads()), min_score=0.3)
  # A photo of twice the model's side, and less high.
  boxes = detector(np.zeros((96, 128, 3), np.uint8))
  wanted = [
    [2 * (28 - 8), 2 * (20 - 12), 32, 48, 0.72],
    [2 * (48 - 16), 2 * (48 - 16), 64, 64, 0.45],
  ]
  np.testing.assert_allclose(boxes, wanted, rtol=1e-5)
  of_things = Yolox(model(tmp_path / "e.onnx", heads()), category=1)
  np.testing.assert_allclose(
    of_things(np.zeros((64, 64, 3), np.uint8)), [[0, 0, 8, 8, 0.81]], rtol=1e-5
  )


def test_boxes_of_decoded_heads(tmp_path):
  decoded = np.full((1, 84, 6), 1.0)
  decoded[..., 4:] = 0
  decoded[0, 5] = [28, 20, 16, 24, 0.9, 0.8]
  detector = Yolox(model(tmp_path / "d.onnx", decoded))
  found = detector(np.zeros((64, 64, 3), np.uint8))
  np.testing.assert_allclose(found, [[20, 8, 16, 24, 0.72]], rtol=1e-5)


def test_nobody(tmp_path):
  detector = Yolox(model(tmp_path / "d.onnx", heads()), min_score=0.99)
  assert detector(np.zeros((64, 64, 3), np.uint8)).shape == (0, 5)


def test_what_is_no_detector_is_one_line(tmp_path):
  (tmp_path / "text.onnx").write_text("text")
  flat = model(tmp_path / "flat.onnx", np.zeros((1, 84)))
  grey = model(tmp_path / "grey.onnx", heads(), shape=(1, 1, SIDE, SIDE))
  for path, says in (
    (tmp_path / "none.onnx", "cannot use .* as an ONNX model"),
    (tmp_path / "text.onnx", "cannot use .* as an ONNX model"),
    (flat, r"its first output is \[1, 84\]"),
    (grey, r"its inputs are \[\[1, 1, 64, 64\]\]"),
  ):
    with pytest.raises(InputError, match=says) as error:
      Yolox(str(path))
    assert "\n" not in str(error.value)
  for output in (np.zeros((1, 80, 7)), np.zeros((1, 84, 5))):
    detector = Yolox(model(tmp_path / "d.onnx", output))
    with pytest.raises(InputError, match=r"expected \(1, 84, 5 \+ classes\)"):
      detector(np.zeros((64, 64, 3), np.uint8))
  with pytest.raises(InputError, match="colors is 'rgb'; allowed: bgr"):
    Yolox(flat, colors="rgb")
