"""Shards that are lost: what `ActorShards` does, whatever the processes of the shards are. No Ray."""

from functools import partial

import numpy as np
import pytest

from ray_kplm.config import load_config
from ray_kplm.errors import RunError
from ray_kplm.runtime.call_board import LostCallError
from ray_kplm.runtime.kmeans_actors import ActorShards
from ray_kplm.runtime.shard_hosts import HeldShard


class HostsInThisProcess:
    """Shards in this process. Before chosen calls, counted from 0, the shard that is called is lost.

    A call is done when its result is asked for: nothing but that says in which order calls are done.
    """

    def __init__(self, lost_before=()):
        self.shards, self.calls, self._lost_before = {}, 0, lost_before

    def begin(self, compute, parts):
        return min(2, parts)

    def make(self, shard, config, features, parts):
        return partial(self.shards.__setitem__, shard, HeldShard(config, features, parts, 1))

    def ask(self, shard, method, arguments):
        return partial(self._answer, shard, method, arguments)

    def get(self, reference):
        return reference()

    def _answer(self, shard, method, arguments):
        if self.calls in self._lost_before:
            self.shards.pop(shard, None)
        self.calls += 1
        if shard not in self.shards:
            raise LostCallError("lost")
        return self.shards[shard].ask(method, *arguments)

    def replace(self, shard):
        assert shard not in self.shards

    def wait(self, made):
        for reference in made:
            reference()

    def close(self):
        pass


@pytest.fixture(scope="module")
def config():
    return load_config(None, ["compute.max_failures=2"])


def results(shards):
    """What shards answer in turn: the state of each call depends on the calls before."""
    centroids = np.eye(8, 32, dtype=np.float32)
    shards.ask("begin")
    shards.ask("begin_fit", 0.5, True)
    first = shards.ask("filter_landmarks", centroids)
    totals = shards.ask("begin_fit", 1.0, False)
    return first, totals, shards.ask("partial", centroids)


def sums(answers):
    _, totals, partials = answers
    return [tuple(vars(total).values()) for total in totals], [partial.sums for partial in partials]


@pytest.fixture
def without_ray(monkeypatch):
    """Arguments that Ray would share are passed as they are."""
    monkeypatch.setattr("ray_kplm.runtime.kmeans_actors.ray.put", lambda value: value)


@pytest.mark.parametrize("lost_before", [(1,), (5,), (8, 9), (9, 11)])
def test_a_lost_shard_is_made_again_and_gets_the_calls_that_changed_it(features, config, without_ray, lost_before):
    undisturbed = ActorShards(config, features, features.parts(), HostsInThisProcess())
    disturbed = ActorShards(config, features, features.parts(), HostsInThisProcess(lost_before))
    expected, found = sums(results(undisturbed)), sums(results(disturbed))
    assert disturbed.rebuilt >= 1
    assert expected[0] == found[0]
    for one, two in zip(expected[1], found[1], strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_shard_that_is_lost_each_time_is_an_error_that_names_the_setting(features, config, without_ray):
    shards = ActorShards(config, features, features.parts(), HostsInThisProcess(range(99)))
    with pytest.raises(RunError, match=r"shard 0 of 2 died 3 times in begin \(compute.max_failures = 2\)"):
        shards.ask("begin")
