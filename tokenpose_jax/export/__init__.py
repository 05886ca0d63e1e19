"""Networks for other runtimes, each with its own proof (`exported`)."""
