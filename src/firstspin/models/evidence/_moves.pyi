from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from firstspin.records import Listen, Listens

class Moves:
    def __new__(
        cls,
        listen: type[Listen],
        stations: dict[str, int],
        places: dict[str, int],
        find: Callable[[str], str | None],
        ratios: NDArray[np.float64],
        weight: float,
        strength: float,
        saturation: float,
        picked: float,
        skip: float,
    ) -> Moves: ...
    def of(self, listens: Listens, picks: tuple[str, ...], /) -> tuple[int, bytes | None]: ...
