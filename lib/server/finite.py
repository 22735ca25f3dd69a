"""JSON has no NaN: replace what is not finite by null, so that `/info/` can always be sent."""

from __future__ import annotations

import math
from typing import Any


def finite(value: Any) -> Any:
    """A copy of nested dicts, lists and numbers with NaN and infinities as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
