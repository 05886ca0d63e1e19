"""What an evaluation leaves behind: metrics, results and one page to read.

    WORKDIR/eval/STEP/report.html             every evaluation of that step
    WORKDIR/eval/STEP/BOXES/metrics.json      metrics, intervals, how made
    WORKDIR/eval/STEP/BOXES/results.json      COCO results
    WORKDIR/eval/STEP/BOXES/people.png        a sample of people
    WORKDIR/eval/STEP/BOXES/pictures/*.jpg    best and worst predictions

BOXES is "gt" or the name of the detector-box file.
"""

from tokenpose_jax.eval_report.gallery import Drawing, Gallery
from tokenpose_jax.eval_report.page import Evaluation, render
from tokenpose_jax.eval_report.provenance import Circumstances, how_made
from tokenpose_jax.eval_report.record import Record
from tokenpose_jax.eval_report.write import REPORT, read, write

__all__ = [
  "REPORT",
  "Circumstances",
  "Drawing",
  "Evaluation",
  "Gallery",
  "Record",
  "how_made",
  "read",
  "render",
  "write",
]
