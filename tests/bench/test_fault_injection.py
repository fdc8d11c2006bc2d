"""The faults of `kplm bench chaos` and its table. The runs themselves are started by hand: each takes minutes."""

from ray_kplm.bench.fault_injection import MOMENTS, lines
from ray_kplm.cli.bench import VICTIMS


def test_every_victim_is_killed_at_three_moments():
    faults = [fault for row in MOMENTS for fault in row]
    for victim in VICTIMS:
        moments = [fault for fault in faults if fault.victim == victim]
        assert len(moments) == len(set(moments)) == 3
    assert len(faults) == 21


def test_the_table_names_what_is_wrong_with_a_case():
    fine = {"faults": ["a", "b"], "seconds": 60.0, "same": True, "repeated_iterations": 20, "problems": []}
    bad = {**fine, "same": False, "repeated_iterations": 0, "problems": ["differs in stage2/network.pt"]}
    assert lines({"cases": [fine, bad], "faults": 4, "calm_seconds": 50.0}) == [
        "a; b · 60 s · same bits · 20 iterations repeated",
        "a; b · 60 s · differs in stage2/network.pt",
        "4 faults; the undisturbed run takes 50 s",
    ]
