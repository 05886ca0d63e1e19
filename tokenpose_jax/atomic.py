"""Files that are whole or not there, whenever a run is killed."""

from etils import epath


def write(path: epath.Path, content: str | bytes) -> None:
  """Writes a file aside and renames it.

  Args:
    path: of the file, whose folder is there; in a bucket, too.
    content: text or bytes.

  Raises:
    OSError: it cannot be written.
  """
  data = content.encode() if isinstance(content, str) else content
  partial = path.with_name(f"{path.name}.partial")
  partial.write_bytes(data)
  partial.replace(path)
