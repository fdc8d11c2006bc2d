"""What waits for MLflow, on storage."""

from ray_kplm.storage import Folder
from ray_kplm.tracking.spool import Point, Spool


def points(steps, name="loss"):
    return [Point(name, step / 2, step, 1_000 + step) for step in steps]


def read(spool):
    return [point for segment in spool.segments() for point in spool.read(segment)]


def test_points_outlive_the_process_in_their_order(tmp_path):
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
    spool.drop(segment, 2)
    assert read(spool) == points([3])
    assert spool.points == 1


def test_when_full_the_curves_get_coarser_and_keep_their_end(tmp_path):
    spool = Spool(Folder.at(tmp_path), most_points=2_000)
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


def test_the_tree_and_what_is_said_of_it(tmp_path):
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
    assert spool.told() == "3 numbers, 2 files, how it ended"
    assert spool.files() == ["config.yaml", "report/index.html"]
    spool.discard()
    assert spool.is_empty()
    assert not (tmp_path / "tracking").exists()
