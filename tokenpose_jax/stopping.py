"""Being told to stop, by SIGTERM or Ctrl-C, and leaving with nothing lost.

A thread of its own hears the signals. The main thread may be inside a
compilation, a collective or TensorFlow for minutes, where Python runs no
handler; and an exception raised out of a handler can come up anywhere, in a
half-made import or in a library that passes it over.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

# Seconds that a step under way and its save may take. Schedulers that ask for
# a stop wait at least 30 before they kill.
PATIENCE = 25.0
# Seconds for each thing that is to be done before leaving in a hurry.
HURRY = 10.0

_HEARD = (signal.SIGTERM, signal.SIGINT)


class _Process:
  """This process, as far as leaving it is concerned.

  Attributes:
    asked: the first signal that came; 0: none.
    unsaved: the main thread has work that is not saved; it looks at `asked`
      soon, saves and leaves by itself.
    place: where the run is, after "stopped by SIGTERM".
    duties: what is done before leaving, the last one first.
    farewell: tells the other processes the exit code and the last line.
  """

  def __init__(self) -> None:
    self.asked = 0
    self.unsaved = False
    self.place = "before the first step"
    self.duties: list[Callable[[], object]] = []
    self.farewell: Callable[[int, str], object] = lambda code, line: None
    self.leaving = threading.Lock()


_process = _Process()


def listen() -> None:
  """Hears SIGTERM and Ctrl-C from now on; call it in the main thread.

  As long as nothing is `unsaved`, the process leaves at once.
  """
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  for number in _HEARD:
    # Python's own part does nothing: the thread reads the number.
    signal.signal(number, lambda *_: None)

  def hear() -> None:
    while number := os.read(reader, 1):
      if number[0] in _HEARD:
        _hear(number[0])

  threading.Thread(target=hear, name="signals", daemon=True).start()


def _hear(number: int) -> None:
  if _process.asked or not _process.unsaved:
    # The second one, or nothing is lost by leaving.
    threading.Thread(target=leave_for, args=(number,), daemon=True).start()
    return
  _process.asked = number

  def insist() -> None:
    time.sleep(PATIENCE)
    leave_for(number)

  threading.Thread(target=insist, daemon=True).start()


def asked() -> int:
  """The signal by which this process was told to stop; 0: none."""
  return _process.asked


def at(place: str, *, unsaved: bool = False) -> None:
  """Says where the run is.

  Args:
    place: after "stopped by SIGTERM", with what is saved.
    unsaved: leaving at once would lose something: the caller looks at `asked`
      soon and leaves by itself.
  """
  _process.place, _process.unsaved = place, unsaved


def tell_others_by(farewell: Callable[[int, str], object]) -> None:
  """Sets what tells the other processes of a run that this one leaves.

  Args:
    farewell: is given the exit code and the last line.
  """
  _process.farewell = farewell


@contextlib.contextmanager
def duty(task: Callable[[], object]) -> Iterator[None]:
  """What is in here is not left without the task being done.

  Args:
    task: as waiting for a save; called in another thread where the process is
      told to stop, and by nobody where the block ends by itself.
  """
  _process.duties.append(task)
  try:
    yield
  finally:
    _process.duties.remove(task)


def leave_for(number: int) -> None:
  """Leaves because of a signal, with one line and the exit code for it.

  Args:
    number: of the signal.
  """
  name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
  leave(
    128 + number,
    f"stopped by {name} {_process.place}; the same command goes on",
  )


def leave(code: int, line: str = "") -> None:
  """Ends the process at once, whatever its threads are doing.

  Python would wait for those of a checkpoint that cannot be written, or of a
  partner that is gone.

  Args:
    code: exit code.
    line: the last one on stderr; "": none.
  """
  if not _process.leaving.acquire(blocking=False):
    threading.Event().wait()  # Another thread is at it.
  for task in reversed(_process.duties):
    _hurry(task)
  for handler in logging.getLogger().handlers:
    _quietly(handler.flush)
  if line:
    # On a terminal a progress bar may stand in the line.
    start = "\n" if sys.stderr.isatty() else ""
    _quietly(lambda: print(f"{start}{line}", file=sys.stderr))
  for stream in (sys.stdout, sys.stderr):
    _quietly(stream.flush)
  _hurry(lambda: _process.farewell(code, line))
  os._exit(code)


def _hurry(task: Callable[[], object]) -> None:
  """Does a task if it takes no longer than it may."""
  thread = threading.Thread(target=_quietly, args=(task,), daemon=True)
  thread.start()
  thread.join(HURRY)


def _quietly(task: Callable[[], object]) -> None:
  # On the way out there is nobody left to tell.
  with contextlib.suppress(Exception):
    task()
