"""Looks for what is wrong in a data set before a training is spent on it."""
