"""The feature cache: budget, order, versions, threads."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from click_cases import LEVELS, grey_network, source

from lib.clicks.answer import segment_clicked
from lib.clicks.source import Clicks
from lib.prediction.feature_cache import FeatureCache, WindowFeatures, WindowKey
from lib.volumes.boxes import Box

BOX: Box = ((0, 4), (0, 4), (0, 1))


def entry(voxels: int = 16) -> WindowFeatures:
    half = torch.zeros((voxels, 8), dtype=torch.float16)
    return WindowFeatures(BOX, half, half)


def key(number: int, weights: str = "one") -> WindowKey:
    return WindowKey(weights, f"image {number}", BOX)


def test_least_recently_used_leaves_first_within_the_budget() -> None:
    cache = FeatureCache(3 * entry().nbytes)
    for i in (0, 1, 2):
        cache.get(key(i), entry)
    cache.get(key(0), entry)  # used again
    cache.get(key(3), entry)
    assert cache.nbytes <= cache.budget and len(cache) == 3
    misses = cache.misses
    for i in (0, 2, 3):
        cache.get(key(i), entry)
    assert cache.misses == misses
    cache.get(key(1), entry)
    assert cache.misses == misses + 1
    big = cache.get(key(9), lambda: entry(1000))
    assert big.nbytes > cache.budget and len(cache) == 3  # answered, not stored


def test_new_weights_drop_what_was_computed_with_old_ones() -> None:
    cache = FeatureCache(10**6)
    cache.get(key(0), entry)
    cache.get(key(1), entry)
    cache.get(key(0, "two"), entry)
    assert len(cache) == 1 and cache.nbytes == entry().nbytes


def test_old_weights_that_finish_late_are_not_stored() -> None:
    cache = FeatureCache(10**6)

    def slow() -> WindowFeatures:
        cache.get(key(1, "two"), entry)  # published meanwhile
        return entry()

    cache.get(key(0, "one"), slow)
    assert len(cache) == 1
    cache.clear()
    assert len(cache) == 0 and cache.nbytes == 0


def test_two_requests_for_one_window_compute_it_once() -> None:
    cache = FeatureCache(10**6)
    calls = []
    gate = threading.Event()

    def compute() -> WindowFeatures:
        calls.append(1)
        gate.wait(5.0)
        return entry()

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(cache.get, key(0), compute) for _ in range(4)]
        time.sleep(0.05)
        gate.set()
        found = [w.result() for w in waiting]
    assert len(calls) == 1 and all(f is found[0] for f in found)


def test_a_failure_reaches_the_caller_and_the_next_request_tries_again() -> None:
    cache = FeatureCache(10**6)

    def broken() -> WindowFeatures:
        raise OSError("file vanished")

    with pytest.raises(OSError, match="vanished"):
        cache.get(key(0), broken)
    assert cache.get(key(0), entry).nbytes == entry().nbytes


def test_two_annotators_at_once_each_get_their_own_answer() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, LEVELS, (24, 24, 4)).astype(np.float32) for _ in range(2)]
    for image in images:
        image[4:20, 4:20] = 3
    images[1][10:14] = 5
    net, cache = grey_network(), FeatureCache(2**26)
    lists = [Clicks([(6, 6, 1)]), Clicks([(18, 18, 2)], [(5, 5, 1)]), Clicks([(12, 6, 1)])]
    jobs = [(i, c) for i in (0, 1) for c in lists] * 3
    alone = [segment_clicked(source(images[i], net, key=f"alone {i}"), c).mask for i, c in jobs]

    def answer(job: tuple[int, Clicks]) -> np.ndarray:
        i, clicks = job
        shared = source(images[i], net, cache=cache, key=f"image {i}")
        return segment_clicked(shared, clicks).mask

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(answer, jobs))
    assert all(np.array_equal(a, t) for a, t in zip(alone, together, strict=True))
