"""Calls to workers: who gets them, and what the caller gets."""

import pytest

from ray_kplm.runtime.call_board import CallBoard, LostCallError


def test_a_rank_gets_its_calls_in_order_and_the_caller_the_answers():
    board = CallBoard()
    first, other, second = board.add(0, "first"), board.add(1, "other"), board.add(0, "second")
    assert board.take(0, "a") == (first, "first")
    assert board.take(0, "a") == (second, "second")
    assert not board.has_open(0)
    assert board.has_open(1)
    board.settle(first, 7)
    board.settle(second, None, ValueError("no"))
    assert board.is_settled(first)
    assert not board.is_settled(other)
    assert board.close(first) == 7
    with pytest.raises(ValueError, match="no"):
        board.close(second)


def test_what_a_dead_worker_had_taken_is_lost_and_what_waits_goes_to_the_next_one():
    board = CallBoard()
    taken, answered, waiting = board.add(0, "taken"), board.add(0, "answered"), board.add(0, "waiting")
    board.take(0, "a")
    board.take(0, "a")
    board.settle(answered, "yes")
    board.lose("a")
    assert board.close(answered) == "yes"
    with pytest.raises(LostCallError, match="died"):
        board.close(taken)
    assert board.take(0, "b") == (waiting, "waiting")


def test_a_call_without_an_answer_is_lost_when_the_workers_end():
    board = CallBoard()
    call = board.add(0, "call")
    with pytest.raises(LostCallError, match="ended"):
        board.close(call)
    board.settle(call, "too late")
