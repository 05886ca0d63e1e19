"""The one error that means: what you gave us is wrong, not our code."""


class InputError(ValueError):
  """Bad input from a user: a config field, a file, a checkpoint.

  The message is one line that says what is wrong, where, and what to do.
  `main.py` prints it without a traceback and exits with 1.
  """
