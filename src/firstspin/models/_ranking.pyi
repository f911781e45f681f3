import numpy as np
from numpy.typing import NDArray

def ranked(
    scores: NDArray[np.float64], genres: tuple[str, ...], /
) -> list[tuple[tuple[str, ...], tuple[float, ...]]]: ...
def ranked_into(
    scores: NDArray[np.float64], places: NDArray[np.int32], probabilities: NDArray[np.float64], /
) -> None: ...
