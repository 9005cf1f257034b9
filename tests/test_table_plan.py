"""The plan of a table: which bucket comes when, who lends what to whom, and how steps are driven side by side."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlap.buckets import bucket_order
from overlap.errors import ConfigError
from overlap.search.table import LENDERS, STRIP, Step, drive, plan, seeds_of
from overlap.split import Split
from overlap.workload import Bucket
from tests.fakes import small_workload

PREFILLS = st.builds(
    Bucket, st.just("prefill"), st.sampled_from([1, 2, 8]), st.sampled_from([64, 128, 512]), st.sampled_from([0, 8, 64])
)
DECODES = st.builds(Bucket, st.just("decode"), st.integers(1, 4), st.just(1), st.sampled_from([1, 8, 64]))
BUCKETS = st.lists(PREFILLS | DECODES, min_size=1, max_size=40, unique=True)
# Three strips: two of prefills, one of decodes.
SIX = [*(Bucket("prefill", 1, query, 0) for query in (8, 16, 24, 32, 48)), Bucket("decode", 2, 1, 16)]


@given(BUCKETS, st.randoms())
def test_a_plan_has_every_bucket_once_and_follows_from_the_list_alone(buckets: list[Bucket], rng: Any) -> None:
    strips = plan(buckets)
    flat = [step.bucket for strip in strips for step in strip]
    assert sorted(flat, key=bucket_order) == sorted(buckets, key=bucket_order)
    assert all(1 <= len(strip) <= STRIP for strip in strips)
    shuffled = list(buckets)
    rng.shuffle(shuffled)
    assert plan(shuffled) == strips


@given(BUCKETS)
def test_lenders_are_done_before_and_of_the_same_phase(buckets: list[Bucket]) -> None:
    for strip in plan(buckets):
        seen: list[Bucket] = []
        for step in strip:
            assert list(step.lenders) == seen[::-1][:LENDERS]
            assert {one.phase for one in step.lenders} <= {step.bucket.phase}
            seen.append(step.bucket)


def test_neighbours_of_a_full_grid_follow_each_other() -> None:
    grid = [
        Bucket("prefill", batch, query, context) for batch in (1, 2) for query in (1, 2, 4, 8) for context in (0, 1)
    ]
    for strip in plan(grid):
        for one, other in pairwise(step.bucket for step in strip):
            changed = [name for name in ("batch", "query", "context") if getattr(one, name) != getattr(other, name)]
            assert len(changed) == 1


def test_the_largest_strip_is_begun_first() -> None:
    first = plan([Bucket("prefill", 1, 1 << power, 0) for power in range(9)])[0]
    assert Bucket("prefill", 1, 256, 0) in [step.bucket for step in first]


@given(BUCKETS, st.integers(1, 4), st.integers(0, 99))
def test_steps_wait_for_their_lenders_and_for_a_free_job(buckets: list[Bucket], jobs: int, seed: int) -> None:
    rng, lock, running, most = random.Random(seed), threading.Lock(), set(), []
    strips = plan(buckets)
    known = {one: 0 for one in buckets if rng.random() < 0.3}
    told: list[Bucket] = []

    def work(step: Step) -> int:
        with lock:
            running.add(step.bucket)
            most.append(len(running))
        time.sleep(rng.random() / 2000)
        with lock:
            running.discard(step.bucket)
        return 1

    with ThreadPoolExecutor(jobs + 1) as pool:

        def submit(step: Step, found: Mapping[Bucket, int]) -> Future[int]:
            assert step.bucket not in known
            assert set(step.lenders) <= set(found)
            return pool.submit(work, step)

        found = drive(strips, jobs, known, submit, lambda bucket, _: told.append(bucket))
    assert found == {one: int(one not in known) for one in buckets}
    assert sorted(told, key=bucket_order) == sorted(set(buckets) - set(known), key=bucket_order)
    assert max(most, default=0) <= jobs


def test_the_first_error_ends_a_table() -> None:
    def submit(step: Step, found: Mapping[Bucket, int]) -> Future[int]:
        future: Future[int] = Future()
        future.set_exception(ConfigError("no")) if len(found) == 2 else future.set_result(1)
        return future

    with pytest.raises(ConfigError):
        drive(plan(SIX), 1, {}, submit, lambda bucket, result: None)


def test_seeds_are_kept_splits_that_fit() -> None:
    workload = small_workload(query=6)
    near, far, own = Bucket("prefill", 1, 8, 0), Bucket("prefill", 1, 4, 0), workload.bucket
    kept = {near: Split(chunks=2), far: Split(chunks=4)}
    step = Step(own, (near, far))
    assert seeds_of(step, kept, workload) == [Split(chunks=2)], "6 tokens are not cut in 4"
    assert seeds_of(step, {near: Split(), far: Split(chunks=2)}, workload) == [Split(chunks=2)]
    assert seeds_of(step, {near: Split(chunks=2), far: Split(chunks=2)}, workload) == [Split(chunks=2)]
    assert seeds_of(step, {}, workload) == []
