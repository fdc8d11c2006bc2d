"""Batches made ahead: in order, one at most, beside the step that uses the last one."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from ray_kplm.methods.prefetch import Columns, ahead

CPU = torch.device("cpu")
WAIT_S = 20


def made_of(number: int, device: torch.device = CPU) -> Columns:
    return {"number": np.full(2, number), "picture": torch.full((2, 8, 8, 3), float(number), device=device)}


def numbers(count: int):
    return iter(range(count))


def test_batches_come_in_order():
    assert [int(batch["number"][0]) for batch in ahead(numbers(7), made_of, CPU)] == list(range(7))
    assert list(ahead(iter(()), made_of, CPU)) == []


def test_the_next_batch_is_made_while_the_last_one_is_used_and_no_other():
    asked, made = [], threading.Semaphore(0)

    def make(number: int) -> Columns:
        asked.append(number)
        made.release()
        return made_of(number)

    for used, _ in enumerate(ahead(numbers(5), make, CPU)):
        wanted = min(used + 2, 5)
        while len(asked) < wanted:
            assert made.acquire(timeout=WAIT_S), "the next batch is not made before this one was used"
        assert asked == list(range(wanted))


def test_an_error_comes_after_the_batches_before_it():
    def broken(number: int) -> Columns:
        if number == 2:
            raise OSError("no such image")
        return made_of(number)

    batches = ahead(numbers(5), broken, CPU)
    assert [int(next(batches)["number"][0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="no such image"):
        next(batches)


def test_a_training_that_stops_early_leaves_no_thread():
    before = set(threading.enumerate())
    batches = ahead(numbers(100), made_of, CPU)
    next(batches)
    assert set(threading.enumerate()) > before
    batches.close()
    assert set(threading.enumerate()) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_views_are_made_beside_the_training_stream_and_waited_for_there():
    cuda = torch.device("cuda", torch.cuda.current_device())
    streams = []

    def make(number: int) -> Columns:
        streams.append(torch.cuda.current_stream())
        torch.cuda._sleep(
            20_000_000
        )  # some 10 ms, so that a reader that does not wait reads memory that is not written yet
        return made_of(number, cuda)

    found = [batch["picture"].sum() for batch in ahead(numbers(8), make, cuda)]
    assert torch.stack(found).tolist() == [n * 2 * 8 * 8 * 3 for n in range(8)]
    assert set(streams) == {streams[0]}
    assert streams[0] != torch.cuda.current_stream()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_copy_of_the_next_batch_overlaps_the_step():
    """The kernels of both streams are in flight at once: the next batch is there before a long step ends."""
    cuda = torch.device("cuda", torch.cuda.current_device())
    done: list[torch.cuda.Event] = []

    def make(number: int) -> Columns:
        made = made_of(number, cuda)
        done.append(torch.cuda.current_stream().record_event())
        return made

    batches = ahead(numbers(2), make, cuda)
    next(batches)
    torch.cuda._sleep(2_000_000_000)  # the step: about a second
    step = torch.cuda.current_stream().record_event()
    next(batches)
    done[1].synchronize()
    assert not step.query()
