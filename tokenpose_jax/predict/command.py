r"""Finds keypoints in photos and videos.

    tokenpose predict photo.jpg --out found
    tokenpose predict photos/ clip.mp4 --weights s_v1.safetensors --out found \
        --detector yolox_s.onnx
    tokenpose predict val2017/ --weights runs/s_v1 --out found \
        --boxes detections.json --images person_keypoints_val2017.json

Without --box, --boxes or --detector each image is one person. OUT gets
results.json (COCO results) and drawn/; --write also knows json (named
keypoints) and csv. All of it is written as it comes.
"""

import argparse
from typing import Any

from tokenpose_jax import compiled, progress
from tokenpose_jax.codec import DECODERS
from tokenpose_jax.errors import InputError
from tokenpose_jax.predict import boxes as boxes_lib
from tokenpose_jax.predict import folders
from tokenpose_jax.predict import load as load_lib
from tokenpose_jax.predict import run as run_lib
from tokenpose_jax.predict import saved as saved_lib
from tokenpose_jax.predict import sources as sources_lib
from tokenpose_jax.predict import writers as writers_lib
from tokenpose_jax.terminal import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of `tokenpose predict`."""
  add = parser.add_argument
  add(
    "inputs",
    nargs="+",
    metavar="INPUT",
    help="photos, videos, folders, patterns, cameras (0)",
  )
  add(
    "--weights",
    help="a work directory, a published folder or a file of weights; default:"
    " those that come with the package",
  )
  add("--out", required=True, help="a new or empty folder")
  saved_lib.add_arguments(parser)
  boxes_lib.add_arguments(parser)
  group = parser.add_argument_group("how they are predicted")
  group.add_argument(
    "--no-flip-test", action="store_true", help="half the work, less exact"
  )
  group.add_argument("--decoder", choices=DECODERS)
  group.add_argument(
    "--nms",
    type=float,
    default=1.0,
    metavar="OKS",
    help="above it, of two poses the better one stays, as 0.9 in an"
    " evaluation; default: 1, all stay",
  )
  group = parser.add_argument_group("videos")
  group.add_argument(
    "--detect-every",
    type=int,
    default=1,
    metavar="N",
    help="frames; between them, boxes come from the poses; default: 1",
  )
  group.add_argument(
    "--no-track", action="store_true", help="people without ids"
  )
  group.add_argument(
    "--smooth",
    type=float,
    nargs="?",
    const=1.0,
    default=0.0,
    metavar="HZ",
    help="cutoff of the One-Euro filter; 1 without a number; default: none",
  )
  group = parser.add_argument_group("output")
  group.add_argument(
    "--write",
    default="coco,drawn",
    help="of coco, json, csv, drawn; default: coco,drawn",
  )
  group.add_argument(
    "--min-score",
    type=float,
    default=0.2,
    help="keypoints below are not drawn; they stay in files; default: 0.2",
  )


def run(arguments: argparse.Namespace) -> int:
  """Predicts.

  Returns:
    1 where something could not be read.

  Raises:
    InputError: an argument cannot be used, or the output not be written.
  """
  kinds = _kinds(arguments.write)
  _check(arguments)
  sources, passed = sources_lib.find(arguments.inputs)
  _check_videos(arguments, sources)
  compiled.keep()
  ids = boxes_lib.ImageIds(arguments.images)
  boxes = boxes_lib.chosen(arguments, ids)
  weights = saved_lib.chosen(arguments.weights)
  folders.make_empty(arguments.out)
  options: dict[str, Any] = {}
  if arguments.no_flip_test:
    options["flip_test"] = False
  if arguments.decoder:
    options["decoder"] = arguments.decoder
  estimator = load_lib.load(
    weights,
    step=arguments.step,
    skeleton=arguments.skeleton,
    weights=arguments.kind,
    **options,
  )
  writers = writers_lib.writers(
    kinds,
    arguments.out,
    estimator.skeleton,
    category_id=arguments.category_id,
    min_score=arguments.min_score,
  )
  bar = progress.bar(_length(sources), "predicting", "frames")
  following = run_lib.Following(
    arguments.detect_every, not arguments.no_track, arguments.smooth
  )
  whole = run_lib.Run(
    estimator, boxes, ids, writers, following, bar.update, arguments.nms
  )
  try:
    whole(sources)
  except KeyboardInterrupt:
    say(f"stopped; what was found until now is in {arguments.out}")
    return 130
  finally:
    bar.close()
    for writer in writers:
      writer.close()
    if passed:
      say(f"{len(passed)} other files passed over, as {passed[0]}")
    for line in run_lib.describe(whole.count):
      say(line)
  return int(bool(whole.count.broken))


def _kinds(text: str) -> list[str]:
  kinds = [kind.strip() for kind in text.split(",") if kind.strip()]
  wrong = [kind for kind in kinds if kind not in writers_lib.KINDS]
  if wrong or not kinds:
    raise InputError(f"--write={text}: allowed: {', '.join(writers_lib.KINDS)}")
  return list(dict.fromkeys(kinds))


def _check(arguments: argparse.Namespace) -> None:
  boxes_lib.require_one(arguments)
  if arguments.detect_every < 1:
    raise InputError(
      f"--detect-every={arguments.detect_every}: expected at least 1"
    )
  if not 0 < arguments.nms <= 1:
    raise InputError(f"--nms={arguments.nms}: expected an OKS, over 0 up to 1")
  if not 0 <= arguments.smooth < float("inf"):
    raise InputError(f"--smooth={arguments.smooth}: expected a number of Hz")


def _check_videos(
  arguments: argparse.Namespace, sources: list[sources_lib.Source]
) -> None:
  moving = next((s for s in sources if s.kind != "photo"), None)
  if moving and (arguments.boxes or arguments.images):
    raise InputError(
      f"{moving.name} is a video; --boxes and --images are of photos: give"
      " --detector or --box"
    )


def _length(sources: list[sources_lib.Source]) -> int | None:
  """Frames of all sources; None: not known."""
  total = 0
  for source in sources:
    if source.kind == "camera":
      return None
    if source.kind == "photo":
      total += 1
      continue
    try:
      video = sources_lib.Video(source.path)
    except sources_lib.Broken:
      continue
    total += video.length
    video.close()
  return total
