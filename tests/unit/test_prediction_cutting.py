"""How a volume is cut into blocks."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from lib.prediction.cutting import cut_blocks
from lib.volumes.boxes import box_slices


@given(
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    block=st.tuples(*[st.integers(9, 30)] * 3),
    overlap=st.tuples(*[st.integers(1, 4)] * 3),
)
@example((1, 34, 1), (9, 14, 9), (1, 4, 1))  # three blocks, the inner one the largest
def test_cores_partition_the_volume_and_outers_reach_beyond_them(shape, block, overlap) -> None:
    seen = np.zeros(shape, int)
    for b in cut_blocks(shape, block, overlap):
        seen[box_slices(b.core)] += 1
        for (lo, hi), (a, z), n, size, shared in zip(
            b.core, b.outer, shape, block, overlap, strict=True
        ):
            assert max(a, 0) == a <= lo < hi <= z <= n and z - a <= size
            assert lo == 0 or lo - a == shared // 2
    assert (seen == 1).all()
