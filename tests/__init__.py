"""The tests, and how annotations are checked while they run."""

from beartype import BeartypeConf, beartype

# For pyproject.toml's --jaxtyping-packages. An int is a float, as for mypy.
typecheck = beartype(conf=BeartypeConf(is_pep484_tower=True))
