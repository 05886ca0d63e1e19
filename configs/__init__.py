"""One file per variant; `default.py` lists every field once."""
