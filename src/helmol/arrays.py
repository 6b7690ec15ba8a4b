"""Arrays by kind of number, and annotations of their shapes: ``Float64[Array, "n_atoms 3"]``.

The shapes are for readers, and for the tests, where jaxtyping and beartype check them at every call; a name
means the same length everywhere in one call. Elsewhere they cost nothing and need no package.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float64, Int64, Shaped
else:
    from typing import Annotated

    Bool = Float = Float64 = Int64 = Shaped = Annotated

Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

__all__ = ["Array", "Bool", "BoolArray", "Float", "Float64", "Int64", "IntArray", "Shaped"]
