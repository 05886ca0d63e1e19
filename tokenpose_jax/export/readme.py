"""What an export says of itself, for people who have nothing else."""

from typing import Any

from tokenpose_jax.exported import FILES
from tokenpose_jax.geometry import CROP_PADDING
from tokenpose_jax.predict.saved import Saved

_RUN = {
  "onnx": """    import onnxruntime
    session = onnxruntime.InferenceSession("model.onnx")
    keypoints, scores = session.run(["keypoints", "scores"], {"crops": crops})
""",
  "litert": """    from ai_edge_litert.interpreter import Interpreter
    model = Interpreter("model.tflite").get_signature_runner("serving_default")
    keypoints = model(crops=crops)["keypoints"]
""",
  "savedmodel": """    import tensorflow as tf
    model = tf.saved_model.load("saved_model").signatures["serving_default"]
    keypoints = model(crops=tf.constant(crops))["keypoints"]
""",
  "stablehlo": """    import jax.export
    content = open("model.stablehlo", "rb").read()
    model = jax.export.deserialize(bytearray(content))
    keypoints, scores, heatmaps = model.call(crops)
""",
  "orbax": """    import os, orbax.checkpoint as ocp
    with ocp.StandardCheckpointer() as reader:
      weights = reader.restore(os.path.abspath("orbax"))  # params, model_state
""",
  "safetensors": """    import safetensors.numpy
    weights = safetensors.numpy.load_file("model.safetensors")
""",
}


def preprocessing(saved: Saved) -> dict[str, Any]:
  """What lies before the model, JSON types.

  Args:
    saved: the network.
  """
  height, width = saved.model.input_hw
  return {
    "crop_hw": [height, width],
    "crop_over_box": saved.options.get("padding", CROP_PADDING),
    "aspect_ratio": width / height,
    "outside": 0,
    "interpolation": "bilinear",
    "channels": "RGB",
    "dtype": "uint8",
    "normalization": "inside the model",
  }


def text(saved: Saved, meta: dict[str, Any], parity: dict[str, Any]) -> str:
  """The README.md of an export.

  Args:
    saved: the network.
    meta: of export.json.
    parity: of parity.json.
  """
  height, width = saved.model.input_hw
  rows, columns = saved.model.heatmap_hw
  padding = preprocessing(saved)["crop_over_box"]
  names = ", ".join(saved.skeleton.keypoints)
  lines = [
    "# A TokenPose network",
    "",
    f"Exported by tokenpose_jax {meta['software']}. One crop of a person in,"
    f" {saved.skeleton.num_keypoints} keypoints out, in this order: {names}.",
    "",
    "## Before the model",
    "",
    "1. The box of a person, x, y, w, h in pixels (x, y the upper left corner);"
    " its center is (x + (w - 1) / 2, y + (h - 1) / 2).",
    f"2. Widen it about its center to the aspect ratio {width} : {height}, and"
    f" multiply both sides by {padding:g}.",
    f"3. Map it to {width} x {height} pixels (width x height) by an affine map"
    " with bilinear sampling; outside of the photo is 0. The center of the box"
    f" goes to ({width / 2:g}, {height / 2:g}); pixel centers are whole"
    " numbers.",
    f"4. `crops`: (batch, {height}, {width}, 3), uint8, RGB, 0 to 255."
    " Normalization is inside.",
    "",
    "## After the model",
    "",
    "`keypoints` (batch, K, 2) are x, y in pixels of the crop; the inverse of"
    " the affine map takes them to the photo. `scores` (batch, K) are how sure"
    f" they are; `heatmaps` (batch, K, {rows}, {columns}) what they come from."
    f" Decoder: {meta['decoder']}; flip test inside:"
    f" {'yes' if meta['flip_test'] else 'no'}.",
    "",
    "## Formats",
    "",
    "| format | file | heatmaps within | keypoints within, px | ms a crop |",
    "| --- | --- | --- | --- | --- |",
  ]
  if saved.model.doubt:
    place = lines.index("## Formats")
    lines[place:place] = [
      "`scores` are `presence` x `similarity`, each (batch, K): the probability"
      " that a keypoint lies in the crop and would be labeled there, and the"
      " expected similarity (as in OKS) of the place found, if so."
      " `visibility`: the probability that it is not hidden, if present."
      " `error`: the expected distance from the true place, if present, in"
      " pixels of the crop.",
      "",
    ]
  for name, difference in parity.items():
    lines.append(
      f"| {name} | {FILES[name]} | {difference['heatmaps']:.1e} |"
      f" {difference['pixels']:.4f} | {difference['milliseconds']:.1f} |"
    )
  for name, facts in meta["formats"].items():
    said = ", ".join(f"{n} {v}" for n, v in facts.items())
    lines += ["", f"### {name}", "", f"{said}.", "", _RUN[name].rstrip()]
  lines += [
    "",
    "`tokenpose verify .` checks every file (SHA256SUMS) and runs the test"
    " inputs again; it needs NumPy and the runtime, not JAX.",
    "",
  ]
  return "\n".join(lines)
