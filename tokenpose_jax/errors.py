"""The error raised for invalid user input, as opposed to a bug."""

from collections.abc import Iterable

from tokenpose_jax.terminal import printable


class InputError(ValueError):
  """Bad input from a user: a config field, a file, a checkpoint.

  The message is one line that says what is wrong, where, and what to do.
  Every command prints it without a traceback and exits with code 1.
  """


def one_line(error: object, most: int | None = None) -> str:
  """What an error of others says, on one line; its kind where it says nothing.

  What is not seen in it is spelled (`terminal.printable`).

  Args:
    error: or anything that has words.
    most: letters that are kept; None: all.
  """
  words = " ".join(str(error).split()) or type(error).__name__
  return printable(words)[:most]


def check_choice(field: str, value: object, allowed: Iterable[object]) -> None:
  """Checks that a field has one of the allowed values.

  Args:
    field: its name in the config, `section.name`.
    value: what it is set to.
    allowed: what it may be.

  Raises:
    InputError: naming the field, its value and what is allowed.
  """
  choices = list(allowed)
  if value not in choices:
    raise InputError(
      f"{field} is {value!r}; allowed: {', '.join(map(str, choices))}"
    )


def check_at_least(field: str, value: float, least: float) -> None:
  """Checks that a field is a number of at least `least`; NaN is not.

  Args:
    field: its name in the config, `section.name`.
    value: what it is set to.
    least: the smallest allowed value.

  Raises:
    InputError: naming the field, its value and the bound.
  """
  if not value >= least:
    raise InputError(f"{field} is {value}; it must be at least {least}")
