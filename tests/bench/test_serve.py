"""What `kplm bench serve` counts as right and as broken; tests/serving/test_ray_serve.py has the server."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from ray_kplm.bench.http_load import Reply, image_request
from ray_kplm.bench.serve import _is_right, _pictures, _with_broken, is_passed, lines
from ray_kplm.datasets.image_io import decode_image_file
from ray_kplm.errors import DataError
from ray_kplm.landmark_detector import Landmarks

FIGURES = {
    "requests": 10, "clients": 2, "max_batch": 4, "requests_per_s": 80.0, "latency_ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0},
    "one_client_ms": {"p50": 4.0, "p95": 5.0, "p99": 6.0}, "bare_images_per_s": 100.0, "bare_one_image_ms": 7.0, "ratio": 0.8,
    "multipart_images_per_s": 90.0, "multipart_ratio": 0.9, "errors": 0,
    "broken": {"requests": 5, "answered_4xx": 5, "errors_of_others": 0},
}  # fmt: skip


def test_every_fourth_image_is_broken_and_the_others_are_as_before():
    pictures = _pictures(40)
    requests = [image_request(one) for one in pictures]
    mixed = _with_broken(requests, pictures)
    for number, request in enumerate(mixed):
        body = request.split(b"\r\n\r\n", 1)[1]
        if number % 4:
            assert request == requests[number]
            assert decode_image_file(body).rgb.shape == (40, 40, 3)
        else:
            with pytest.raises(DataError):
                decode_image_file(body)
    assert len({mixed[number].split(b"\r\n\r\n", 1)[1] for number in range(0, 16, 4)}) == 4


def test_an_answer_is_right_within_a_tenth_of_a_pixel():
    one = np.ones(2, np.float32)
    expected = Landmarks(np.array([[1, 2], [np.nan, np.nan]], np.float32), one, one, one > 0)

    def reply(status, x, lost=None):
        return Reply(0, status, 0.1, {"images": [{"xy": [[x, 2.0], [lost, lost]]}]})

    assert _is_right(reply(200, 1.05), expected)
    for wrong in (reply(200, 1.2), reply(422, 1.0), reply(200, 1.0, 3.0), Reply(0, 0, 0.1, {})):
        assert not _is_right(wrong, expected)


def test_the_bench_passes_only_without_any_error():
    assert is_passed(FIGURES)
    for path, value in ((("errors",), 1), (("broken", "answered_4xx"), 4), (("broken", "errors_of_others"), 1)):
        wrong = copy.deepcopy(FIGURES)
        section = wrong if len(path) == 1 else wrong[path[0]]
        section[path[-1]] = value
        assert not is_passed(wrong), path
    assert "ratio 0.80; 0.90 in requests with 4 images" in "\n".join(lines(FIGURES))
