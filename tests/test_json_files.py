"""JSON of any encoding, depth and size."""

import json

import pytest

from tests import fixtures
from tokenpose_jax import json_files

CONTENT = {"name": "Büro", "keypoints": [1, 2.5, None]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_any_encoding_with_or_without_a_mark(tmp_path, encoding):
  path = tmp_path / "file.json"
  path.write_bytes(json.dumps(CONTENT, ensure_ascii=False).encode(encoding))
  assert json_files.read(path, "results") == CONTENT


@pytest.mark.parametrize(
  ("raw", "part"),
  [
    (b"", "is not JSON"),
    (b"\xff\xfe\x00", "is not JSON"),
    (b"{'a': 1}", "is not JSON"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"a":' * 100_000, "nested too deeply"),
    (b"[1" + b"0" * 5000 + b"]", "is not JSON"),
  ],
)
def test_what_cannot_be_parsed_is_one_line(tmp_path, raw, part):
  path = tmp_path / "file.json"
  path.write_bytes(raw)
  fixtures.check_refused(lambda: json_files.read(path, "results"), path, part)


def test_missing_files_and_folders_are_named(tmp_path):
  for path in (tmp_path / "no.json", tmp_path):
    fixtures.check_refused(
      lambda p=path: json_files.read(p, "results"), path, "results"
    )


def test_a_file_too_large_is_refused_before_it_is_read(tmp_path):
  path = tmp_path / "large.json"
  with path.open("wb") as file:
    file.truncate(json_files.LARGEST + 1)  # takes no room on the disk
  fixtures.check_refused(
    lambda: json_files.read(path, "results"), path, "2.0 GiB", "split"
  )
