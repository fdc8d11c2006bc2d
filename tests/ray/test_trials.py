"""Trials through Ray Tune: figures by name, lines on the way, and one that fails does not take the others along."""

from ray_kplm.config import load
from ray_kplm.errors import CollapseError
from ray_kplm.steps.trials import run_trials


def test_trials(ray_cluster):
    def trial(config, told):
        told(f"K is {config.method.landmarks}")
        if config.method.landmarks == 7:
            raise CollapseError("too few points")
        if config.method.landmarks == 8:
            raise RuntimeError("a bug")
        return {"forward_nme": float(config.method.landmarks), "nothing": None}

    configs = {f"K={k}": load(None, [f"method.landmarks={k}"]) for k in (5, 7, 8, 6)}
    lines = []
    found = run_trials(trial, configs, at_once=2, told=lambda name, line: lines.append((name, line)))
    assert list(found) == list(configs)
    assert found["K=5"] == {"forward_nme": 5.0, "nothing": None}
    assert found["K=6"]["forward_nme"] == 6.0
    assert found["K=7"] == {"error": "too few points"}
    assert "a bug" in found["K=8"]["error"]
    assert sorted(lines) == [(f"K={k}", f"K is {k}") for k in (5, 6, 7, 8)]
