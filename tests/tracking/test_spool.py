"""The queue of what has not been sent to MLflow, on storage."""

from ray_kplm.storage import Folder
from ray_kplm.tracking.spool import Point, Spool


def points(steps, name="loss"):
    return [Point(name, step / 2, step, 1_000 + step) for step in steps]


def read(spool):
    return [point for segment in spool.segments() for point in spool.read(segment)]


def test_points_survive_the_process_in_their_order(tmp_path):
    first = Spool(Folder.at(tmp_path))
    first.add(points(range(0, 1500)))
    first.add(points(range(1500, 1501), "other"))
    second = Spool(Folder.at(tmp_path))
    second.add(points([1600]))
    assert second.points == 1502
    assert read(second) == points(range(1500)) + points([1500], "other") + points([1600])
    assert [len(second.read(segment)) for segment in second.segments()] == [1000, 501, 1]


def test_nothing_is_added_to_a_segment_that_is_being_sent(tmp_path):
    spool = Spool(Folder.at(tmp_path))
    spool.add(points([1, 2]))
    (segment,) = spool.segments()
    spool.add(points([3]))
    spool.remove(segment)
    assert read(spool) == points([3])
    assert spool.points == 1


def test_a_full_queue_thins_out_the_longest_curves_and_keeps_their_end(tmp_path):
    spool = Spool(Folder.at(tmp_path), max_points=2_000)
    for start in range(0, 6_000, 100):
        spool.add(
            points(range(start, start + 100)) + points(range(start, start + 100), "other") + points([start], "rare")
        )
    kept = read(spool)
    assert spool.points == len(kept) <= 2_000
    assert spool.is_thinned
    steps = [point.step for point in kept if point.name == "loss"]
    assert steps == [point.step for point in kept if point.name == "other"]
    assert steps == list(range(0, 6_000, 8))  # the smallest power of two with which both fit
    assert [point.step for point in kept if point.name == "rare"] == list(range(0, 6_000, 100))


def test_the_files_of_a_queue_and_its_summary(tmp_path):
    spool = Spool(Folder.at(tmp_path / "tracking"))
    assert spool.is_empty()
    spool.add(points([1, 2, 3]))
    spool.put_file("config.yaml", b"seed: 7")
    spool.put_file("report/index.html", b"<html>")
    spool.put_end("FAILED")
    found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    segment = spool.segments()[0]
    assert found == [
        "tracking/end.json", "tracking/files/config.yaml", "tracking/files/report/index.html", f"tracking/metrics/{segment}",
    ]  # fmt: skip
    assert spool.summary() == "3 numbers, 2 files, the final status"
    assert spool.files() == ["config.yaml", "report/index.html"]
    spool.clear()
    assert spool.is_empty()
    assert not (tmp_path / "tracking").exists()


def test_what_another_process_removed_reads_as_empty(tmp_path):
    spool, other = Spool(Folder.at(tmp_path)), Spool(Folder.at(tmp_path))
    spool.add(points([1, 2]))
    spool.put_file("config.yaml", b"seed: 7")
    spool.put_end("FAILED")
    (segment,), (path,) = spool.segments(), spool.files()
    other.clear()
    assert (spool.read(segment), spool.read_file(path), spool.end()) == ([], None, None)
    spool.remove(segment)
    spool.remove_file(path)
    spool.remove_end()
    assert spool.is_empty()


def test_a_segment_thinned_out_while_it_is_sent_is_counted_once(tmp_path):
    spool = Spool(Folder.at(tmp_path), max_points=10)
    spool.add(points(range(10)))
    (segment,) = spool.segments()
    spool.add(points([10]))
    spool.remove(segment)
    assert spool.points == len(read(spool)) == 1
