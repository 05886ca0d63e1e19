"""What an evaluation leaves behind: figures, results and one page to read.

    WORKDIR/eval/STEP/report.html             every evaluation of that step
    WORKDIR/eval/STEP/BOXES/metrics.json      figures, intervals, how made
    WORKDIR/eval/STEP/BOXES/results.json      COCO results
    WORKDIR/eval/STEP/BOXES/people.png        a sample of people
    WORKDIR/eval/STEP/BOXES/pictures/*.jpg    best and worst predictions

BOXES is "gt" or the name of the detector-box file.
"""

from tokenpose_jax.eval_report.gallery import Gallery, Picture
from tokenpose_jax.eval_report.measure import Measured, measure
from tokenpose_jax.eval_report.page import Evaluation, render
from tokenpose_jax.eval_report.provenance import how_made
from tokenpose_jax.eval_report.write import REPORT, write

__all__ = [
  "REPORT",
  "Evaluation",
  "Gallery",
  "Measured",
  "Picture",
  "how_made",
  "measure",
  "render",
  "write",
]
