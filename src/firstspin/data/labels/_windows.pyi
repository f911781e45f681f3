from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Texts = NDArray[np.signedinteger[Any]]

class Windows:
    def __new__(
        cls, key: bytes, parts: tuple[tuple[Texts, pa.Buffer, NDArray[np.int32], NDArray[np.int64]], ...], /
    ) -> Windows: ...
    def inside(
        self,
        offsets: Texts,
        text: pa.Buffer,
        started: NDArray[np.int64],
        window: int,
        places: NDArray[np.int32],
        rows: NDArray[np.int32],
        /,
    ) -> int: ...
    def rows(self, offsets: Texts, text: pa.Buffer, places: NDArray[np.int32], rows: NDArray[np.int32], /) -> None: ...
