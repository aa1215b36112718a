"""Making the next items while the one before is used."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

from cutsew.steady import use_one_thread

T = TypeVar("T")
DEPTH = 2
"""Items made ahead."""


class _End:
    pass


END: Final = _End()


def ahead(items: Iterator[T]) -> Generator[T]:
    """Give the items in order, the next ones made meanwhile by a thread; what fails there fails here, in its turn."""
    with ThreadPoolExecutor(1, "ahead", use_one_thread) as pool:
        waiting: deque[Future[T | _End]] = deque(pool.submit(next, items, END) for _ in range(DEPTH))
        try:
            while not isinstance(item := waiting.popleft().result(), _End):
                waiting.append(pool.submit(next, items, END))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)
