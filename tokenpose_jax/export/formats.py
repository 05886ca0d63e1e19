"""One function per format: a network written as other runtimes read it."""

import datetime
import functools
import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import export

from tokenpose_jax import exported
from tokenpose_jax.errors import InputError
from tokenpose_jax.export.function import Function, outputs_of
from tokenpose_jax.exported import FILES
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict.saved import Saved

OPSET = 20  # the first one with Gelu
PLATFORMS = ("cpu", "cuda", "tpu")
_PROMISED = datetime.timedelta(days=180)  # that JAX reads its own StableHLO


class Job(NamedTuple):
  """What is exported.

  Attributes:
    saved: the network.
    function: the whole path.
    folder: that is there.
    batch: of formats whose batch is fixed.
    fp16: halves the precision of ONNX's weights and products.
  """

  saved: Saved
  function: Function
  folder: str
  batch: int
  fp16: bool

  def path(self, name: str) -> str:
    """Where the file of a format is."""
    return os.path.join(self.folder, FILES[name])

  @property
  def outputs(self) -> list[str]:
    """The names of what the function returns, in order."""
    return list(outputs_of(self.saved.model))

  def shape(self, batch: Any) -> jax.ShapeDtypeStruct:
    """Of the crops."""
    return jax.ShapeDtypeStruct(
      (batch, *self.saved.model.input_hw, 3), jnp.uint8
    )


def onnx(job: Job) -> dict[str, Any]:
  """ONNX: one file, any batch, native LayerNormalization and Gelu."""
  to_onnx, library = _import("jax2onnx", "to_onnx"), _import("onnx")
  with warnings.catch_warnings():
    # jax2onnx uses what Flax has deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    model = to_onnx(
      job.function,
      [job.shape("B")],
      model_name="tokenpose",
      opset=OPSET,
      input_names=["crops"],
      output_names=job.outputs,
      normalization_mode="prefer_native",
    )
  if job.fp16:
    _halve(model)
  library.checker.check_model(model)
  library.save(model, job.path("onnx"))
  return {"opset": OPSET, "batch": "any", "fp16": job.fp16}


def _halve(model: Any) -> None:
  """Half precision for convolutions and products of matrices, in place.

  Everything else, normalization and decoding above all, leaves its range.
  """
  library = _import("onnx")
  half, full = library.TensorProto.FLOAT16, library.TensorProto.FLOAT
  cast = functools.partial(library.helper.make_node, "Cast")
  graph = model.graph
  constants = {tensor.name: tensor for tensor in graph.initializer}
  halved: dict[str, str] = {}
  nodes = []
  for node in graph.node:
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
      nodes.append(node)
      continue
    for place, name in enumerate(node.input):
      short = f"{name}_half"
      if name and name not in halved:
        halved[name] = short
        if name in constants:
          values = library.numpy_helper.to_array(constants[name])
          graph.initializer.append(
            library.numpy_helper.from_array(values.astype(np.float16), short)
          )
        else:
          nodes.append(cast([name], [short], to=half))
      node.input[place] = halved.get(name, name)
    (output,) = node.output
    node.output[0] = f"{output}_product"
    nodes += [node, cast([node.output[0]], [output], to=full)]
  del graph.node[:]
  graph.node.extend(nodes)
  used = {name for node in nodes for name in node.input}
  kept = [tensor for tensor in graph.initializer if tensor.name in used]
  del graph.initializer[:]
  graph.initializer.extend(kept)


def stablehlo(job: Job) -> dict[str, Any]:
  """StableHLO of `jax.export`: any batch, three platforms."""
  (batch,) = export.symbolic_shape("b")
  made = export.export(jax.jit(job.function), platforms=PLATFORMS)(
    job.shape(batch)
  )
  with open(job.path("stablehlo"), "wb") as file:
    file.write(made.serialize())
  until = datetime.date.today() + _PROMISED
  return {
    "batch": "any",
    "platforms": list(PLATFORMS),
    "jax": jax.__version__,
    "readable_until": until.isoformat(),
  }


def savedmodel(job: Job) -> dict[str, Any]:
  """SavedModel of TensorFlow, through jax2tf: any batch."""
  tf = _import("tensorflow")
  jax2tf = _import("jax.experimental.jax2tf")
  convert = jax2tf.convert(
    lambda crops: dict(zip(job.outputs, job.function(crops), strict=True)),
    polymorphic_shapes=["(b, ...)"],
    with_gradient=False,
    native_serialization_platforms=PLATFORMS,
  )
  module = tf.Module()
  module.serve = tf.function(
    convert,
    autograph=False,
    input_signature=[
      tf.TensorSpec(
        (None, *job.saved.model.input_hw, 3), tf.uint8, name="crops"
      )
    ],
  )
  tf.saved_model.save(
    module,
    job.path("savedmodel"),
    signatures={"serving_default": module.serve.get_concrete_function()},
  )
  return {"batch": "any", "tensorflow": tf.__version__}


def litert(job: Job) -> dict[str, Any]:
  """LiteRT (.tflite) from StableHLO, without TensorFlow: a fixed batch."""
  api = _import("litert_converter.converter_api_ext")
  ir = _import("litert_converter.mlir.ir")
  passes = _import("litert_converter.mlir.passmanager")
  made = export.export(jax.jit(job.function), platforms=["cpu"])(
    job.shape(job.batch)
  )
  context = ir.Context()
  api.prepare_mlir_context(context)
  with context:
    module = ir.Module.parse(made.mlir_module())
    api.set_signature(
      module.operation, "serving_default", ["crops"], job.outputs
    )
    api.run_convert_to_tfl_passes(
      module, passes.PassManager(), api.ConvertToTFLConfig()
    )
    content = api.export_flatbuffer_to_bytes(module.operation)
  with open(job.path("litert"), "wb") as file:
    file.write(content)
  return {"batch": job.batch}


def orbax(job: Job) -> dict[str, Any]:
  """The weights as an Orbax checkpoint."""
  saved_lib.write_orbax(job.saved, epath.Path(job.folder))
  return {"tree": "params, model_state"}


def safetensors(job: Job) -> dict[str, Any]:
  """The weights as `tokenpose publish` writes them."""
  saved_lib.write_weights(job.saved, epath.Path(job.folder))
  return {"names": "of the original implementation"}


WRITE: dict[str, Callable[[Job], dict[str, Any]]] = {
  "onnx": onnx,
  "stablehlo": stablehlo,
  "savedmodel": savedmodel,
  "litert": litert,
  "orbax": orbax,
  "safetensors": safetensors,
}
assert list(WRITE) == list(exported.FILES)


def _import(module: str, name: str = "") -> Any:
  """A part of a library that exports need.

  Raises:
    InputError: it is not installed.
  """
  try:
    found = importlib.import_module(module)
  except ImportError as error:
    raise InputError(
      f"this format needs {module}: pip install --no-deps -r"
      f" requirements-export.txt ({error})"
    ) from None
  return getattr(found, name) if name else found
