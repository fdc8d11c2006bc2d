"""The queue between the driver and its training workers."""

import asyncio

import pytest

from ray_kplm.errors import StorageError
from ray_kplm.runtime.call_board import LostCallError
from ray_kplm.runtime.job_queue import JobQueue


def in_loop(scenario):
    asyncio.run(asyncio.wait_for(scenario(JobQueue()), timeout=20))


def test_a_worker_waits_for_the_next_job_and_the_driver_for_its_end():
    async def scenario(queue):
        next_job, end = asyncio.create_task(queue.after(-1)), asyncio.create_task(queue.wait_until_finished(0))
        await asyncio.sleep(0)
        assert not next_job.done()
        await queue.put(0, "job")
        assert await next_job == (0, "job")
        assert not end.done()
        await queue.begin(7)
        await queue.finish(0)
        await end
        assert (await queue.stats())["starts"] == [7]

    in_loop(scenario)


def test_a_restarted_worker_gets_the_job_that_is_not_finished():
    async def scenario(queue):
        await queue.put(0, "first")
        await queue.finish(0)
        await queue.put(1, "second")
        assert await queue.after(-1) == (1, "second")

    in_loop(scenario)


def test_closing_the_queue_answers_every_waiting_worker_with_none():
    async def scenario(queue):
        answers = [asyncio.create_task(queue.after(-1)) for _ in range(3)]
        await asyncio.sleep(0)
        await queue.close()
        assert await asyncio.gather(*answers) == [None, None, None]

    in_loop(scenario)


def test_the_first_job_wants_workers():
    async def scenario(queue):
        answer = asyncio.create_task(queue.wait_for_first_job())
        await asyncio.sleep(0)
        assert not answer.done()
        await queue.put(0, "job")
        assert await answer

    in_loop(scenario)


def test_a_queue_closed_without_a_job_wants_no_workers():
    async def scenario(queue):
        answer = asyncio.create_task(queue.wait_for_first_job())
        await asyncio.sleep(0)
        await queue.close()
        assert not await answer

    in_loop(scenario)


def test_the_driver_waits_until_a_worker_begins_the_job():
    async def scenario(queue):
        await queue.put(0, "first")
        await queue.begin(0)
        await queue.wait_until_begun(0)
        answer = asyncio.create_task(queue.wait_until_begun(1))
        await asyncio.sleep(0)
        await queue.put(1, "second")
        await asyncio.sleep(0)
        assert not answer.done()
        await queue.begin(0)
        await answer

    in_loop(scenario)


def test_a_map_ends_with_the_result_of_its_last_part():
    async def scenario(queue):
        await queue.join(0, "a")
        await queue.put(0, "map", 2)
        assert [await queue.take(0, 0, "a"), await queue.take(0, 0, "a")] == [0, 1]
        waiting = asyncio.create_task(queue.take(0, 0, "a"))
        await queue.hand_in(0, 1, {"rows": 1})
        await asyncio.sleep(0)
        assert not waiting.done(), "the other part may be lost"
        await queue.hand_in(0, 0, {"rows": 0})
        assert await waiting is None
        await queue.wait_until_finished(0)
        assert await queue.results() == ({0: {"rows": 0}, 1: {"rows": 1}}, None)
        assert queue.drain() == [(1, None), (2, None)]

    in_loop(scenario)


def test_a_worker_that_has_parts_to_hand_in_does_not_wait_for_more():
    async def scenario(queue):
        await queue.join(0, "a")
        await queue.put(0, "map", 2)
        assert [await queue.take(0, 0, "a", False), await queue.take(0, 0, "a", False)] == [0, 1]
        assert await queue.take(0, 0, "a", False) is None
        await queue.hand_in(0, 0, {})
        await queue.hand_in(0, 1, {})
        assert await queue.take(0, 0, "a") is None

    in_loop(scenario)


def test_the_parts_of_a_restarted_worker_go_to_a_worker_that_waits():
    async def scenario(queue):
        await queue.join(0, "a")
        await queue.join(1, "b")
        await queue.put(0, "map", 1)
        assert await queue.take(0, 0, "a") == 0
        waiting = asyncio.create_task(queue.take(0, 1, "b"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await queue.join(0, "a again")
        assert await waiting == 0

    in_loop(scenario)


def test_a_process_that_was_replaced_while_it_waited_gets_nothing():
    async def scenario(queue):
        await queue.join(0, "a")
        await queue.put(0, "shards")
        old = asyncio.create_task(queue.next_call(0, 0, "a"))
        await asyncio.sleep(0)
        await queue.join(0, "b")
        answer = asyncio.create_task(queue.call(0, "call"))
        assert await old is None
        number, content = await queue.next_call(0, 0, "b")
        assert content == "call"
        await queue.answer(number, "answer")
        assert await answer == "answer"

    in_loop(scenario)


def test_an_error_ends_a_map_and_later_results_change_nothing():
    async def scenario(queue):
        await queue.join(0, "a")
        await queue.put(0, "map", 2)
        await queue.take(0, 0, "a")
        await queue.fail(0, StorageError("full"))
        assert await queue.take(0, 0, "a") is None
        await queue.hand_in(0, 0, {})
        results, error = await queue.results()
        assert results == {}
        assert isinstance(error, StorageError)
        await queue.put(1, "map", 1)
        assert (await queue.results())[1] is None

    in_loop(scenario)


def test_a_call_is_lost_when_its_worker_is_restarted_or_the_job_ends():
    async def scenario(queue):
        await queue.join(0, "a")
        await queue.put(0, "shards")
        lost, unanswered = (asyncio.create_task(queue.call(0, name)) for name in ("lost", "unanswered"))
        assert (await queue.next_call(0, 0, "a"))[1] == "lost"
        await queue.join(0, "b")
        with pytest.raises(LostCallError):
            await lost
        await queue.finish(0)
        with pytest.raises(LostCallError):
            await unanswered
        assert await queue.next_call(0, 0, "b") is None

    in_loop(scenario)
