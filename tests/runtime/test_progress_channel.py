"""News from the workers: in order, each once, and never worth the work it tells of."""

import ray

from ray_kplm.runtime.progress_channel import open_channel


def test_news_arrives_in_the_order_of_how_far_workers_are(ray_cluster):
    heard = []
    with open_channel(lambda done, text: heard.append((done, text))) as channel:
        ray.get([channel.post.remote(done, text) for done, text in ((1, "a"), (2, "b"), (2, "c"))])
    assert sorted(heard) == heard
    assert heard[-1] == (2, "c")
    assert {done for done, _ in heard} == {1, 2}


def test_a_board_that_is_lost_takes_no_work_with_it(ray_cluster):
    heard = []
    with open_channel(lambda done, text: heard.append(done)) as channel:
        ray.kill(channel)
        channel.post.remote(1, "lost")
    assert heard == []
