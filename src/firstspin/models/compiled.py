"""The C modules of scoring and ranking; None where the install had no compiler: numpy code takes their place.

The answers are the same, but each costs several times as much, so the service logs at start which ones are missing.
"""

from __future__ import annotations

__all__ = ["MISSING", "CompiledMoves", "CompiledScorer", "compiled_ranked", "compiled_ranked_into"]

try:
    from firstspin.models.trees._bitrows import Scorer as CompiledScorer
except ImportError:
    CompiledScorer = None  # type: ignore[assignment, misc]

try:
    from firstspin.models._ranking import ranked as compiled_ranked
    from firstspin.models._ranking import ranked_into as compiled_ranked_into
except ImportError:
    compiled_ranked = compiled_ranked_into = None  # type: ignore[assignment]

try:
    from firstspin.models.evidence._moves import Moves as CompiledMoves
except ImportError:
    CompiledMoves = None  # type: ignore[assignment, misc]

_MODULES = (("_bitrows", CompiledScorer), ("_ranking", compiled_ranked), ("_moves", CompiledMoves))
MISSING = tuple(name for name, built in _MODULES if built is None)
"""Names of the C modules that were not built or can't be loaded."""
