"""Many frames' work in several processes, behind a progress bar."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

from tqdm import tqdm

from pcdet.utils.parent_death import die_with_parent

FRAMES_A_TASK = 4


@contextmanager
def worker_pool(workers: int) -> Iterator[Callable]:
    """A function ``run(function, items, title)`` that yields the results in order, behind a progress bar.

    Args:
        workers: processes; 0 and 1 work in this one.
    """

    def bar(results: Iterable, items: list, title: str) -> Iterator:
        return iter(tqdm(results, total=len(items), desc=title, unit="frame", dynamic_ncols=True, disable=not items))

    if workers < 2:
        yield lambda function, items, title: bar(map(function, items), items, title)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent) as pool:
        try:
            yield lambda function, items, title: bar(pool.map(function, items, chunksize=FRAMES_A_TASK), items, title)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
