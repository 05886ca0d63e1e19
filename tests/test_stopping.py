"""Told to stop, in processes of their own."""

import signal
import subprocess
import sys
import time

import pytest

from tests import fixtures

START = """
import sys, threading, time
from tokenpose_jax import stopping
stopping.listen()
print("ready", flush=True)
"""


def process(body: str) -> subprocess.Popen:
  """Listens, says that it is ready, and does what the body says."""
  started = subprocess.Popen(
    [sys.executable, "-c", START + body],
    cwd=fixtures.ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert started.stdout.readline() == "ready\n"
  return started


def ended(started: subprocess.Popen) -> tuple[int, list[str], list[str]]:
  """(exit code, lines of stdout, lines of stderr)."""
  started.wait(20)
  out, error = started.communicate()
  return started.returncode, out.splitlines(), error.splitlines()


@pytest.mark.parametrize(
  ("number", "code", "name"),
  [(signal.SIGTERM, 143, "SIGTERM"), (signal.SIGINT, 130, "Ctrl-C")],
)
@pytest.mark.parametrize(
  "busy", ["threading.Event().wait()", "while True: pass", "sys.stdin.read()"]
)
def test_where_nothing_is_lost_it_leaves_at_once(number, code, name, busy):
  started = process(busy)
  time.sleep(0.2)
  started.send_signal(number)
  line = f"stopped by {name} before the first step; the same command goes on"
  assert ended(started) == (code, [], [line])


SAVES = """
stopping.at("at step 7", unsaved=True)
print("working", flush=True)
while not stopping.asked():
  time.sleep(0.01)
print("saved")
stopping.at("at step 8, which is saved")
stopping.leave_for(stopping.asked())
"""


def test_what_is_not_saved_is_saved_first():
  started = process(SAVES)
  started.stdout.readline()
  started.send_signal(signal.SIGTERM)
  line = (
    "stopped by SIGTERM at step 8, which is saved; the same command goes on"
  )
  assert ended(started) == (143, ["saved"], [line])


STUCK = """
stopping.PATIENCE = 0.5
stopping.at("at step 7; step 5 is saved", unsaved=True)
print("working", flush=True)
threading.Event().wait()
"""


def test_a_step_that_takes_too_long_is_left():
  started = process(STUCK)
  started.stdout.readline()
  started.send_signal(signal.SIGTERM)
  code, _, lines = ended(started)
  assert (code, len(lines)) == (143, 1)
  assert "at step 7; step 5 is saved" in lines[0]


def test_the_second_one_does_not_wait():
  started = process(STUCK.replace("0.5", "60"))
  started.stdout.readline()
  started.send_signal(signal.SIGINT)
  time.sleep(0.3)
  assert started.poll() is None
  started.send_signal(signal.SIGINT)
  code, _, lines = ended(started)
  assert (code, len(lines)) == (130, 1)


DUTIES = """
stopping.HURRY = 4.0  # of a machine with other work, too
def last(): print("last", flush=True)
def stuck(): print("stuck", flush=True); threading.Event().wait()
def failing(): raise OSError("disk")
def first(): print("first", flush=True)
stopping.tell_others_by(lambda code, line: print(code, line, flush=True))
with (stopping.duty(last), stopping.duty(stuck), stopping.duty(failing),
      stopping.duty(first)):
  with stopping.duty(lambda: print("no more")): pass
  threading.Thread(target=threading.Event().wait).start()
  stopping.leave(1, "error: done")
"""


def test_duties_are_done_and_threads_left_behind():
  assert ended(process(DUTIES)) == (
    1,
    ["first", "stuck", "last", "1 error: done"],
    ["error: done"],
  )
