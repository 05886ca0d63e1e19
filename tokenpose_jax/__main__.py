"""`python -m tokenpose_jax`: the command `tokenpose`."""

from tokenpose_jax.cli import main

if __name__ == "__main__":
  main()
