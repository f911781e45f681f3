import numpy as np
from numpy.typing import NDArray

class Scorer:
    def __new__(
        cls,
        masks: NDArray[np.unsignedinteger],
        rows: NDArray[np.int32],
        cuts: NDArray[np.float64],
        starts: NDArray[np.int64],
        leaves: NDArray[np.float64],
    ) -> Scorer: ...
    def scores(self, rows: NDArray[np.float64], out: NDArray[np.float64], /) -> None: ...
    def scores_of(
        self,
        masks: NDArray[np.unsignedinteger],
        offsets: NDArray[np.int64],
        named: NDArray[np.int32],
        out: NDArray[np.float64],
        /,
    ) -> None: ...
