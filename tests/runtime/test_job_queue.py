"""The queue between the driver and its training workers."""

import asyncio

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
