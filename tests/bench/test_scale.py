"""The model of `kplm bench scale`: its limits, and that it counts what a run does."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from ray_kplm.bench import scale_rates
from ray_kplm.bench.scale import Question, answer, lines, markdown
from ray_kplm.bench.scale_model import Cluster, Design, Model, Workload, total
from ray_kplm.bench.scale_network import NetworkCost, network_cost
from ray_kplm.bench.scale_rates import UNITS, Rates, assumed_rates, read_rates
from ray_kplm.config import load_config
from ray_kplm.errors import ConfigError

MEASURED = {
    "views": 500.0, "decoded": 2_000.0, "detected": 50.0, "prepared": 400.0, "fitted": 1e6, "clustered": 2e5, "trials": 5.0,
    "labels": 1e5, "train_start": 8.0, "train_next": 1.0, "map_start": 6.0, "map_next": 0.3, "cluster_start": 4.0,
    "part": 0.002, "call": 0.002,
}  # fmt: skip
COST = NetworkCost(forward=20.8e9, train=62.1e9, launches=500, parameters=6_800_000)
"""That of thesis_faces, counted once: counting takes seconds."""


@pytest.fixture(scope="module")
def rates() -> Rates:
    return assumed_rates({"image_size": 256}).with_measured(MEASURED, "a test")


@pytest.fixture(scope="module")
def thesis():
    return load_config("thesis_faces")


def workload(config, images=10**6):
    return Workload(config, COST, COST, images)


def seconds(rates, config, gpus, images=10**6, **cluster):
    return total(Model(rates, Cluster(gpus, **cluster)).steps(workload(config, images))).seconds


def test_convolutions_and_backward_passes_are_counted_by_hand():
    cost = network_cost(lambda: nn.Conv2d(3, 8, 3, padding=1, bias=False), 16)
    forward = 2 * 3 * 8 * 9 * 16 * 16  # a multiplication and an addition for each weight and place
    assert cost.forward == forward
    assert cost.train == 2 * forward  # the input has no gradient: forward, and that of the weights
    assert cost.parameters == 3 * 8 * 9


def test_a_layer_between_others_costs_three_forward_passes():
    def make():
        return nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(4, 4, 1, bias=False))

    first, second = 2 * 3 * 4 * 64, 2 * 4 * 4 * 64
    assert network_cost(make, 8).train == 2 * first + 3 * second
    assert all(p.device.type == "cpu" for p in make().parameters())
    assert network_cost(make, 8).launches > 0
    assert torch.get_default_device().type == "cpu"


def test_more_gpus_are_never_slower_up_to_the_batch_and_never_more_than_linear(rates, thesis):
    for images in (10**4, 10**6):
        taken = [seconds(rates, thesis, gpus, images) for gpus in (1, 2, 4, 8, 16)]
        assert taken == sorted(taken, reverse=True)
        for gpus, one in zip((1, 2, 4, 8, 16), taken, strict=True):
            assert taken[0] / one / gpus <= 1


def test_a_run_trains_on_divisors_of_the_batch_only(rates, thesis):
    work = workload(thesis)
    for gpus in (3, 64):
        workers = Model(rates, Cluster(gpus)).training_workers(work, 1)
        assert 16 % workers == 0
        assert workers <= gpus


def test_serial_terms_dominate_at_the_end(rates, thesis):
    work = workload(thesis)

    def serial_share(step, gpus):
        done = getattr(Model(rates, Cluster(gpus)), step)(work, 3)
        assert 0 < done.serial < done.seconds
        return done.serial / done.seconds

    for step in ("extraction", "clustering"):
        assert serial_share(step, 1) < 0.5 < 0.8 < serial_share(step, 4_096), step


def test_beyond_the_images_that_rounds_use_the_dataset_does_not_matter(rates, thesis):
    assert seconds(rates, thesis, 8, 10**7) == seconds(rates, thesis, 8, 10**8)
    assert seconds(rates, thesis, 8, 10**4) < seconds(rates, thesis, 8, 10**5) < seconds(rates, thesis, 8, 10**7)
    bounded = load_config("thesis_faces", ["round_images=20000"])
    assert seconds(rates, bounded, 8, 10**5) == seconds(rates, bounded, 8, 10**8)


def test_s3_costs_requests_and_the_labels_are_read_by_more_readers(rates, thesis):
    assert seconds(rates, thesis, 8, storage="s3") > seconds(rates, thesis, 8, storage="disk")
    labels = [
        Model(rates, Cluster(8, storage="s3"), Design(label_readers=readers)).labels(workload(thesis), 1)
        for readers in (1, 16)
    ]
    assert labels[0].seconds == pytest.approx(16 * labels[1].seconds)
    parts, requests = -(-160_000 // 512), Design().part_requests
    assert labels[0].seconds == pytest.approx(parts * requests * 0.03 + 160_000 / MEASURED["labels"])


def test_an_iteration_takes_as_long_as_the_slowest_of_its_limits(rates, thesis):
    work = workload(thesis)
    fast_views = rates.with_measured({"views": 1e6}, "a test")
    cores, on_cores = Cluster(1, cores=2.0), Design(device_views=False)  # one of the cores launches
    fed = Model(rates, cores, on_cores).iteration(work, 1, 1)
    assert fed.limit == "feed"
    assert fed.seconds == pytest.approx(32 / MEASURED["views"])
    computed = Model(fast_views, cores, on_cores).iteration(work, 1, 1)
    assert computed.limit == "step"
    assert computed.seconds == pytest.approx(32 * COST.train / rates["train_flop"])
    on_the_device = Model(rates, cores).iteration(work, 1, 1)
    assert on_the_device.feed == pytest.approx(32 / MEASURED["decoded"])
    assert on_the_device.step == pytest.approx(computed.step + 32 / rates["device_views"])


def test_a_step_of_few_views_is_not_faster_than_its_operations_are_launched(rates, thesis):
    few = Model(rates, Cluster(16)).iteration(workload(thesis), 1, 16)
    assert few.limit == "launches"
    assert few.seconds == COST.launches * rates["launch"] > few.step


def test_on_cpus_training_and_views_share_the_cores(rates, thesis):
    cpu = rates.with_measured({"train_flop": 5e10, "node_link": 1e9, "reduce_latency": 1e-3}, "a test")
    two = Model(cpu, Cluster(2, gpu=False, cores=1.0, node_devices=2)).iteration(workload(thesis), 1, 2)
    assert two.cores == pytest.approx(two.step + 16 / MEASURED["views"])
    assert two.step > 16 * COST.train / 5e10  # the all-reduce


def test_processes_that_stay_start_once(rates, thesis):
    before = Design(starts_each_round=True, overlapped=False, feature_reads=7)
    often, once = (Model(rates, Cluster(4), design) for design in (before, Design()))
    work = workload(thesis)
    assert once.clustering(work, 3).serial < often.clustering(work, 3).serial - MEASURED["cluster_start"]
    assert once.extraction(work, 3).seconds < often.extraction(work, 3).seconds - MEASURED["map_start"]
    each, kept = (
        Workload(replace(thesis, compute=replace(thesis.compute, rounds_per_fit=n)), COST, COST, 10**6) for n in (1, 40)
    )
    assert once.training(each, 3).serial > MEASURED["train_start"]
    assert once.training(kept, 3).serial == MEASURED["train_next"]


def test_rates_come_back_from_their_file(rates, tmp_path):
    path = tmp_path / "rates.json"
    rates.write(str(path))
    assert read_rates(str(path)) == rates
    assert set(rates.names("measured")) == set(MEASURED)
    assert set(rates.rates) == set(UNITS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree["rates"].pop("views"), r"lacks the rate views"),
        (lambda tree: tree["rates"]["views"].update(value=-1), r"views = -1: must be a number above 0"),
        (lambda tree: tree["rates"]["views"].update(value="fast"), r"views = 'fast': must be a number"),
        (lambda tree: tree["rates"].update(veiws=3), r"'veiws' is no rate"),
        (lambda tree: tree["rates"]["views"].update(origin="guessed"), r"must be measured or assumed"),
        (lambda tree: tree.clear(), r'has no "rates"'),
    ],
)
def test_faults_of_a_file_of_rates_are_one_line(rates, tmp_path, change, message):
    path = tmp_path / "rates.json"
    tree = rates.to_dict()
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(ConfigError, match=message) as fault:
        read_rates(str(path))
    assert "\n" not in str(fault.value)


def test_a_missing_or_broken_file_of_rates_is_one_line(tmp_path):
    (tmp_path / "broken").write_text("{")
    for name, message in (("missing", "No such file"), ("broken", "is no JSON")):
        with pytest.raises(ConfigError, match=message):
            read_rates(str(tmp_path / name))


def test_assumed_rates_may_be_left_out_of_a_file(rates, tmp_path):
    path = tmp_path / "rates.json"
    tree = rates.to_dict()
    del tree["rates"]["s3_request"]
    tree["rates"]["node_link"] = 1e11
    path.write_text(json.dumps(tree))
    read = read_rates(str(path))
    assert read["s3_request"] == scale_rates.ASSUMED["s3_request"][0]
    assert read["node_link"] == 1e11


def test_the_answer_has_all_runs_as_json_and_as_tables(rates, thesis, monkeypatch):
    monkeypatch.setattr(Workload, "of", classmethod(lambda cls, config, images: workload(config, images)))
    figures = answer(Question(thesis, gpus=(1, 8), images=(10**4, 10**6)), rates)
    assert [(run["storage"], run["images"], run["gpus"]) for run in figures["runs"]] == [
        (storage, images, gpus) for storage in ("disk", "s3") for images in (10**4, 10**6) for gpus in (1, 8)
    ]
    run = figures["runs"][0]
    assert {"hours", "cost", "strong_efficiency", "serial_share", "training_workers", "steps"} <= set(run)
    assert run["hours"] == pytest.approx(sum(step["seconds"] for step in run["steps"]) / 3600)
    assert run["cost"] == pytest.approx(3.5 * run["hours"])
    assert figures["weak"][0]["weak_efficiency"] == 1
    assert 0 < figures["weak"][1]["weak_efficiency"] <= 1
    assert sorted(figures["measured"] + figures["assumed"]) == sorted(UNITS)
    json.dumps(figures, allow_nan=False)
    text = "\n".join(lines(figures))
    assert "training of the rounds" in text
    assert "assumed" in text
    assert "| GPUs | training workers |" in "\n".join(markdown(figures))
