"""Text of strangers on a terminal: shown, and never obeyed.

A name in a file may hold what moves the cursor, colors the screen, sets the
window's title or turns the direction of writing.
"""

import sys
import unicodedata


def printable(text: str, kept: str = "") -> str:
  r"""Text in which every letter that is not seen is spelled, as `\x1b`.

  Letters of all languages stay, as do all kinds of spaces.

  Args:
    text: of anybody.
    kept: letters that stay, as line breaks.
  """
  if text.isprintable():
    return text
  return "".join(
    letter if _is_seen(letter) or letter in kept else _spelled(letter)
    for letter in text
  )


def say(text: object, *, aside: bool = False) -> None:
  """Prints one line, whatever is in it.

  Args:
    text: anything that has words; a line break in it is spelled.
    aside: to standard error.
  """
  print(printable(str(text)), file=sys.stderr if aside else sys.stdout)


def _is_seen(letter: str) -> bool:
  # Marks of direction are "format" in Unicode, and not printable to Python.
  return letter.isprintable() or unicodedata.category(letter) == "Zs"


def _spelled(letter: str) -> str:
  return letter.encode("unicode_escape").decode("ascii")
