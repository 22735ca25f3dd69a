"""Make batches ahead in worker threads, in order, so that the trainer does not wait."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over `make(first), make(first + 1), ..., make(stop - 1)`.

    NumPy and SciPy release the interpreter while they work, so threads suffice and the items'
    labels are held once. Errors of `make` arise at the batch they belong to.

    Args:
        make: makes the batch of a step; called from several threads.
        first: the first step.
        stop: the step to stop before.
        workers: threads; 0 makes every batch when it is asked for.
        ahead: batches held ready at most.
    """

    def __init__(
        self, make: Callable[[int], T], first: int, stop: int, workers: int, ahead: int = 4
    ) -> None:
        self.make, self.first, self.stop = make, first, stop
        self.workers, self.ahead = workers, ahead
        self.waited_seconds = 0.0

    def __len__(self) -> int:
        return max(self.stop - self.first, 0)

    def __iter__(self) -> Iterator[T]:
        if self.workers == 0:
            yield from self._one_by_one()
            return
        with ThreadPoolExecutor(self.workers, "batches") as pool:
            pending: deque[Future[T]] = deque()
            try:
                upcoming = iter(range(self.first, self.stop))
                for _, step in zip(range(self.ahead), upcoming, strict=False):
                    pending.append(pool.submit(self.make, step))
                while pending:
                    started = time.perf_counter()
                    made = pending.popleft().result()
                    self.waited_seconds += time.perf_counter() - started
                    for step in upcoming:
                        pending.append(pool.submit(self.make, step))
                        break
                    yield made
            finally:
                for future in pending:
                    future.cancel()

    def _one_by_one(self) -> Iterator[T]:
        for step in range(self.first, self.stop):
            started = time.perf_counter()
            made = self.make(step)
            self.waited_seconds += time.perf_counter() - started
            yield made
