"""Where the state dict is in what a training script saved."""

from collections.abc import Iterable, Mapping
from typing import Any

from absl import logging

from tokenpose_jax.convert.names import AVERAGED
from tokenpose_jax.errors import InputError

# Where training scripts put the state dict, the first that is there. The
# original's checkpoint.pth has the first two and calls its network's name
# "model".
WRAPPERS = (
  *("best_state_dict", "state_dict", "model_state_dict", "model", "module"),
  *("net", "network", "weights", "params"),
)
# Dicts of tensors that are no network's.
_OTHERS = ("optim", "sched", "scaler", "rng", "loop", "callback", "criterion")
_DEEPEST = 4  # dicts in dicts


def state_dict(path: str, content: Any, key: str) -> dict[str, Any]:
  """The tensors of a network by name.

  Args:
    path: of the file, for the error.
    content: what was saved.
    key: where the state dict is, `a.b` for content["a"]["b"]; "": the content
      itself, or the first of `WRAPPERS`, or the only one.

  Raises:
    InputError: there is none, or several and no key.
  """
  found = _state_dicts(content)
  if not found:
    raise InputError(
      f"{path} holds no state dict (names to tensors) but {_contents(content)}"
    )
  plain = [name for name in found if not _is_averaged(name)]
  averaged = [name for name in found if _is_averaged(name)]
  choices = _under(key, found) if key else plain or averaged
  if not choices:
    raise InputError(
      f"{path} has no state dict under {key!r}; there are"
      f" {', '.join(name or '(the file itself)' for name in found)}"
    )
  known = [name for w in WRAPPERS for name in _under(w, choices)]
  if not known and len(choices) > 1:
    raise InputError(
      f"{path} holds several state dicts; choose one with --key:"
      f" {', '.join(choices)}"
    )
  chosen = (known or choices)[0]
  if averaged and not key and chosen not in averaged:
    logging.warning(
      "%s: the weights of %s are taken; averaged ones are there, too: tokenpose"
      " convert import --key=%s",
      path,
      chosen,
      averaged[0],
    )
  return _tensors(path, found[chosen])


def _under(key: str, names: Iterable[str]) -> list[str]:
  """Those at that place or inside of it."""
  return [name for name in names if f"{name}.".startswith(f"{key}.")]


def _state_dicts(content: Any, depth: int = 0) -> dict[str, Mapping]:
  """All state dicts by their place, "" for the content itself."""
  if not isinstance(content, Mapping) or depth > _DEEPEST:
    return {}
  if _is_state_dict(content):
    return {"": content}
  found = {}
  for name, value in content.items():
    if isinstance(name, str) and not any(o in name.lower() for o in _OTHERS):
      for inner, state in _state_dicts(value, depth + 1).items():
        found[f"{name}.{inner}" if inner else name] = state
  return found


def _is_state_dict(content: Mapping) -> bool:
  """Does it have tensors whose names have parts, whatever else it has?"""
  return any(
    isinstance(name, str) and "." in name and hasattr(value, "shape")
    for name, value in content.items()
  )


def _is_averaged(name: str) -> bool:
  return bool(AVERAGED.search(name.lower()))


def _tensors(path: str, content: Mapping) -> dict[str, Any]:
  """The entries that are tensors; what else is there is said."""
  others = [str(n) for n, v in content.items() if not hasattr(v, "shape")]
  if others:
    logging.info("%s: no tensors, passed over: %s", path, _some(others))
  return {str(n): v for n, v in content.items() if hasattr(v, "shape")}


def _contents(content: Any) -> str:
  if isinstance(content, Mapping):
    return _some([str(name) for name in content]) or "nothing"
  return f"a {type(content).__name__}"


def _some(names: list[str]) -> str:
  text = ", ".join(name[:60] for name in names[:8])
  return text + (f" and {len(names) - 8} more" if len(names) > 8 else "")
