"""Array types of annotations."""

import jax
import numpy as np

AnyArray = jax.Array | np.ndarray
"""What functions of the device take: JAX's arrays, and NumPy's as well."""
