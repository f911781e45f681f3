"""The steps of an answer that are written in C; None where an install had no compiler, and numpy takes their place.

Answers stay the same, but each costs several times as much, so a service says at its start which are missing.
"""

from __future__ import annotations

__all__ = ["MISSING", "CompiledScorer", "compiled_ranked"]

try:
    from firstspin.models.trees._bitrows import Scorer as CompiledScorer
except ImportError:
    CompiledScorer = None  # type: ignore[assignment, misc]

try:
    from firstspin.models._ranking import ranked as compiled_ranked
except ImportError:
    compiled_ranked = None  # type: ignore[assignment]

MISSING = tuple(name for name, built in (("_bitrows", CompiledScorer), ("_ranking", compiled_ranked)) if built is None)
"""The C modules that were not built, or can't be loaded."""
