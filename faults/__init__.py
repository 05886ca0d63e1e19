"""Whole runs of main.py that are stopped, killed, damaged and starved.

    make faults
    python -m faults.signals --case=second

Each case ends with the weights of an undisturbed run, or with one line. Slow:
not a part of the tests.
"""
