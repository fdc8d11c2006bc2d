"""Messages of workers to the driver: in order, each once; losing them fails no work."""

import ray

from ray_kplm.runtime.progress_channel import open_channel


def test_messages_arrive_in_the_order_of_the_progress(ray_cluster):
    messages = []
    with open_channel(lambda done, text: messages.append((done, text))) as channel:
        ray.get([channel.send.remote(done, text) for done, text in ((1, "a"), (2, "b"), (2, "c"))])
    assert sorted(messages) == messages
    assert messages[-1] == (2, "c")
    assert {done for done, _ in messages} == {1, 2}


def test_a_killed_channel_loses_its_messages_and_raises_nothing(ray_cluster):
    messages = []
    with open_channel(lambda done, text: messages.append(done)) as channel:
        ray.kill(channel)
        channel.send.remote(1, "lost")
    assert messages == []
