"""What names in files may do to a terminal: nothing."""

import subprocess
import sys

import pytest

from tests import fixtures
from tokenpose_jax import terminal
from tokenpose_jax.errors import one_line

# Clears the screen, names the window, goes back to the line's start, writes
# from the right, is half a character, breaks the line for Unicode.
TRICKS = (
  *("\x1b[2J", "\x1b]0;mine\x07", "\r", "\b", "\x9b2J", "\x7f", "\0"),
  *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
  *("\ud800", "\u2028", "\u200b"),
)
ORDINARY = (
  *("", "nose", "左肩", "épaule gauche", "плечо", "كتف", "🦒.jpg", "C:\\x"),
  *("a\u00a0b", "全角\u3000空白"),
)


@pytest.mark.parametrize("trick", TRICKS, ids=ascii)
def test_a_trick_is_spelled(trick, capsys):
  shown = terminal.printable(f"a{trick}b")
  assert shown.isprintable()
  assert shown[0] + shown[-1] == "ab"
  assert "\\" in shown
  terminal.say(f"a{trick}b")
  terminal.say(f"a{trick}b", aside=True)
  assert capsys.readouterr() == (f"{shown}\n", f"{shown}\n")
  assert one_line(f"a{trick}b").isprintable()


@pytest.mark.parametrize("text", ORDINARY, ids=ascii)
def test_ordinary_text_stays(text):
  assert terminal.printable(text) == text


def test_a_line_break_stays_where_it_is_meant():
  assert terminal.printable("a\nb\tc", "\n") == "a\nb\\tc"
  assert one_line("a\n b\u2028c") == "a b c"


def test_the_log_is_printable():
  """Words, arguments and tracebacks, of what is logged as it is."""
  code = """if True:
    from absl import logging
    from tokenpose_jax import cli
    cli.log_only("<string>")
    logging.info("100%")
    logging.warning("image %s", "\\x1b[2J\\u202e.jpg")
    logging.info("image %s", "a\\nE1128 made up")
    logging.info("table\\n%s", "of\\nrows")
    try:
      raise ValueError("\\x1b]0;mine\\x07")
    except ValueError:
      logging.exception("two\\nlines, \\u5de6")
    """
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=fixtures.ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert all(line.isprintable() for line in done.stderr.splitlines())
  for part in (
    "100%",
    r"image \x1b[2J\u202e.jpg",
    r"a\nE1128",
    "table\nof\nrows",
    "two\nlines, 左",
    r"\x1b]0",
  ):
    assert part in done.stderr
