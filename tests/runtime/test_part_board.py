"""Which parts are open, taken and done."""

from ray_kplm.runtime.part_board import PartBoard


def test_parts_are_handed_out_in_order_and_once():
    board = PartBoard(2)
    assert [board.take("a"), board.take("b")] == [0, 1]
    assert not board.has_open
    board.finish(1, "one")
    assert not board.is_finished
    board.finish(0, "zero")
    assert board.is_finished
    assert board.results == {0: "zero", 1: "one"}


def test_the_unfinished_parts_of_a_dead_worker_are_handed_out_again():
    board = PartBoard(3)
    assert [board.take("a"), board.take("b"), board.take("a")] == [0, 1, 2]
    board.finish(0, "zero")
    board.release("a")
    assert board.has_open
    assert board.take("c") == 2
    assert not board.has_open
    board.release("a")
    assert not board.has_open, "the part belongs to another worker now"


def test_a_late_result_of_a_worker_that_seemed_dead_is_taken():
    board = PartBoard(1)
    board.take("a")
    board.release("a")
    board.finish(0, "late")
    assert not board.has_open
    assert board.is_finished


def test_a_part_that_two_workers_did_counts_once():
    board = PartBoard(2)
    board.take("a")
    board.release("a")
    board.take("b")
    board.finish(0, "one")
    board.finish(0, "two")
    assert board.results == {0: "one"}
    assert not board.is_finished


def test_a_map_without_parts_is_finished():
    assert PartBoard(0).is_finished
