"""The notebook runs from its first cell to its last."""

import json
import subprocess
import sys

from tests import command_line, fixtures

NOTEBOOK = fixtures.ROOT / "docs" / "tutorial.ipynb"


def test_the_notebook_runs(tmp_path):
  cells = json.loads(NOTEBOOK.read_text())["cells"]
  code = [
    "".join(cell["source"])
    for cell in cells
    if cell["cell_type"] == "code" and not cell["metadata"].get("tags")
  ]
  assert len(code) == len([c for c in cells if c["cell_type"] == "code"]) - 1
  whole = "\n\n".join(code)
  short = whole.replace("PEOPLE, EPOCHS = 5000, 14", "PEOPLE, EPOCHS = 32, 1")
  short = short.replace(
    "print(config.model)",
    "config.data.synthetic_test_people = 8; config.eval.bootstrap = 5",
  )
  assert short.count("= 32, 1") == short.count("bootstrap = 5") == 1
  done = subprocess.run(
    [sys.executable, "-c", short],
    cwd=tmp_path,
    env=command_line.environment(PYTHONPATH=str(fixtures.ROOT)),
    capture_output=True,
    text=True,
    timeout=400,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "keypoints within" in done.stdout
  assert (tmp_path / "runs" / "notebook_onnx" / "model.onnx").exists()
