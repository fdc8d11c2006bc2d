"""Six processes of one run killed, one of each kind, the driver and a node among them: the run left alone has the same bits."""

from ray_kplm.bench.chaos import MOMENTS, lines, run_cases


def test_three_moments_of_six_victims():
    for victim in {fault.victim for row in MOMENTS for fault in row}:
        moments = [fault for row in MOMENTS for fault in row if fault.victim == victim]
        assert len(moments) == len(set(moments)) == 3


def test_a_run_whose_processes_are_killed_ends_with_the_same_bits(tmp_path):
    found = run_cases(tmp_path, [MOMENTS[0]], lambda text: None)
    assert found["same"], "\n".join(lines(found))
    assert found["faults"] == 6
