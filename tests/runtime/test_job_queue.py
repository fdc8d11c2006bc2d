"""The queue between the driver and its training workers: who waits, and for what."""

import asyncio

from ray_kplm.runtime.job_queue import JobQueue


def in_loop(scenario):
    asyncio.run(asyncio.wait_for(scenario(JobQueue()), timeout=20))


def test_a_worker_waits_for_the_next_job_and_the_driver_for_its_end():
    async def scenario(queue):
        asked, awaited = asyncio.create_task(queue.after(-1)), asyncio.create_task(queue.wait_until_finished(0))
        await asyncio.sleep(0)
        assert not asked.done()
        await queue.put(0, "job")
        assert await asked == (0, "job")
        assert not awaited.done()
        await queue.begin(7)
        await queue.finish(0)
        await awaited
        assert (await queue.stats())["starts"] == [7]

    in_loop(scenario)


def test_a_worker_that_was_started_again_gets_the_job_that_is_not_finished():
    async def scenario(queue):
        await queue.put(0, "first")
        await queue.finish(0)
        await queue.put(1, "second")
        assert await queue.after(-1) == (1, "second")

    in_loop(scenario)


def test_all_that_wait_learn_that_there_are_no_more_jobs():
    async def scenario(queue):
        asked = [asyncio.create_task(queue.after(-1)) for _ in range(3)]
        await asyncio.sleep(0)
        await queue.close()
        assert await asyncio.gather(*asked) == [None, None, None]

    in_loop(scenario)


def test_workers_are_wanted_with_the_first_job():
    async def scenario(queue):
        asked = asyncio.create_task(queue.wait_for_first_job())
        await asyncio.sleep(0)
        assert not asked.done()
        await queue.put(0, "job")
        assert await asked

    in_loop(scenario)


def test_workers_are_not_wanted_where_no_job_came():
    async def scenario(queue):
        asked = asyncio.create_task(queue.wait_for_first_job())
        await asyncio.sleep(0)
        await queue.close()
        assert not await asked

    in_loop(scenario)


def test_the_driver_learns_when_a_job_is_begun():
    async def scenario(queue):
        await queue.put(0, "first")
        await queue.begin(0)
        await queue.wait_until_begun(0)
        asked = asyncio.create_task(queue.wait_until_begun(1))
        await asyncio.sleep(0)
        await queue.put(1, "second")
        await asyncio.sleep(0)
        assert not asked.done()
        await queue.begin(0)
        await asked

    in_loop(scenario)
