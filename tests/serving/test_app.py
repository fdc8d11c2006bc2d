"""Requests and their answers, in this process and without Ray; the network and the batching are real."""

from __future__ import annotations

import asyncio
import json
import re
import struct
import threading
import time
import zlib
from dataclasses import replace

import cv2
import jsonschema
import numpy as np
import pytest

from ray_kplm.landmark_detector import LandmarkDetector
from ray_kplm.methods.visibility import MIN_PROBABILITY
from ray_kplm.points.stored import EDITED, point_folder, write_point_set
from ray_kplm.serving.openapi import openapi
from ray_kplm.serving.options import ServeOptions

from .conftest import K, Spy, picture, served, slowly

JPEG = {"Content-Type": "image/jpeg"}


def checked(reply) -> dict:
    """The JSON of a reply to POST /predict, which must be as /openapi.json says."""
    document = openapi("1")
    responses = document["paths"]["/predict"]["post"]["responses"]
    schema = responses[str(reply.status_code)]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(reply.json())
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-content-type-options"] == "nosniff"
    return reply.json()


def one(content, **headers):
    """A request with one image."""
    return lambda client: client.post("/predict", content=content, headers={**JPEG, **headers})


def many(*files):
    """A multipart request."""
    parts = [
        ("image", file if isinstance(file, tuple) else (f"{i}.jpg", file, "image/jpeg")) for i, file in enumerate(files)
    ]
    return lambda client: client.post("/predict", files=parts)


def assert_right(entry: dict, detector: LandmarkDetector, content: bytes) -> None:
    (expected,) = detector.predict(content)
    np.testing.assert_allclose(entry["xy"], expected.xy, atol=2e-3)
    np.testing.assert_allclose(entry["confidence"], expected.confidence, atol=2e-4)
    assert entry["found"] == expected.found.tolist()


def test_an_image_is_answered_as_python_does(detector):
    answer = checked(served(detector, one(picture(1))))
    assert answer["names"] == [f"landmark_{k}" for k in range(K)]
    (entry,) = answer["images"]
    assert (entry["width"], entry["height"], entry["probability"]) == (90, 60, [None] * K)
    assert_right(entry, detector, picture(1))


def test_points_of_an_edit_have_their_names_partners_and_edges(untrained_run, point_sets, tmp_path):
    run = untrained_run(tmp_path, K)
    points = point_sets(K)["edited"]
    write_point_set(point_folder(run.folder, EDITED), points)
    detector = LandmarkDetector.load(run.folder.path, device="cpu")

    async def ask(client):
        return await client.post("/predict", content=picture(1), headers=JPEG), await client.get("/")

    reply, about = served(detector, ask)
    answer = checked(reply)
    assert answer["names"] == ["nose", "left eye", "right eye"]
    assert_right(answer["images"][0], detector, picture(1))
    known = about.json()
    assert (known["landmarks"], known["names"]) == (3, answer["names"])
    assert (known["partners"], known["skeleton"]) == ([0, 2, 1], [[0, 1], [0, 2]])
    document = openapi("1")
    schema = document["paths"]["/"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator({**schema, "components": document["components"]}).validate(known)


def test_several_images_are_answered_in_their_order_and_broken_ones_harm_nobody(detector):
    files = [picture(2), picture(3)[:900], picture(4, 30, 200, "PNG"), b"", ("note.txt", b"hello", "text/plain")]
    reply = served(detector, many(*files))
    first, cut, third, empty, text = checked(reply)["images"]
    assert reply.status_code == 200
    assert_right(first, detector, files[0])
    assert_right(third, detector, files[2])
    assert [entry["name"] for entry in (first, cut, text)] == ["0.jpg", "1.jpg", "note.txt"]
    assert cut["error"]["code"] == empty["error"]["code"] == "unusable_image"
    assert text["error"]["code"] == "unsupported_media_type"


def test_a_request_without_any_usable_image_is_an_error_with_its_reasons(detector):
    reply = served(detector, many(b"x", b"y"))
    assert reply.status_code == 422
    assert [entry["error"]["message"] for entry in checked(reply)["images"]] == ["not an image"] * 2


def bomb() -> bytes:
    """A PNG of a few hundred bytes that says it has 50,000 x 50,000 pixels."""
    png, size = picture(form="PNG"), struct.pack(">II", 50_000, 50_000)
    header = b"IHDR" + size + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "message"),
    [
        (b"no image", {}, 422, "unusable_image", "not an image"),
        (b"", {}, 422, "unusable_image", "empty file"),
        (picture()[:900], {}, 422, "unusable_image", "truncated|cut or damaged"),
        (bomb(), {}, 413, "too_large", "50000 x 50000"),
        (picture(0, 300, 200), {}, 413, "too_large", "300 x 200"),
        (bytes(30_001), {}, 413, "too_large", "30000 bytes"),
        (b"file:///etc/passwd", {"Content-Type": "text/uri-list"}, 415, "unsupported_media_type", "text/uri-list"),
        (b'{"url":"http://example.com/a.jpg"}', {"Content-Type": "application/json"}, 415, "unsupported_media_type", "json"),
        (picture(), {"Content-Type": ""}, 415, "unsupported_media_type", "no content type"),
        (picture(), {"Content-Encoding": "gzip"}, 415, "unsupported_media_type", "encoding"),
        (b"--", {"Content-Type": "multipart/form-data"}, 400, "bad_request", "without a boundary"),
        (b"--", {"Content-Type": f"multipart/form-data; boundary={'b' * 71}"}, 400, "bad_request", "boundary of at most 70"),
        (b"nothing", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "bad_request", "malformed"),
        (b"--b\r\n\r\nhalf", {"Content-Type": "multipart/form-data; boundary=b"}, 400, "bad_request", "before its last"),
        (b"--b\r\n" + b"a: b\r\n" * 50, {"Content-Type": "multipart/form-data; boundary=b"}, 400, "bad_request", "malformed"),
        (b"--b\r\na: " + b"x" * 9000, {"Content-Type": "multipart/form-data; boundary=b"}, 400, "bad_request", "malformed"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(detector, content, headers, status, code, message):
    reply = served(detector, one(content, **headers), max_request_bytes=30_000, max_pixels=10_000)
    error = checked(reply)["error"]
    assert (reply.status_code, error["code"]) == (status, code)
    assert re.search(message, error["message"]), error


def test_a_path_in_a_request_is_not_read(detector, tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture())
    for content in (str(tmp_path / "a.jpg").encode(), (tmp_path / "a.jpg").as_uri().encode()):
        assert served(detector, one(content)).status_code == 422
        assert served(detector, many((str(tmp_path / "a.jpg"), content, "image/jpeg"))).status_code == 422


def test_a_body_is_bounded_while_it_arrives(detector):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1000
            yield bytes(1000)

    reply = served(detector, one(endless()), max_request_bytes=50_000)
    assert (reply.status_code, checked(reply)["error"]["code"]) == (413, "too_large")
    assert sent < 60_000

    async def endless_part():
        yield b"--b\r\n\r\n"
        async for chunk in endless():
            yield chunk

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert served(detector, one(endless_part(), **kind), max_request_bytes=50_000).status_code == 413
    assert sent < 120_000


def test_a_length_that_is_too_large_is_refused_unread(detector):
    async def unread():
        pytest.fail("the body was read")
        yield b""

    assert (
        served(detector, one(unread(), **{"Content-Length": "99999999"}), max_request_bytes=50_000).status_code == 413
    )


def test_more_images_than_allowed_are_refused(detector):
    spy = Spy(detector)
    reply = served(spy, many(*[picture()] * 4), max_request_images=3)
    assert (reply.status_code, checked(reply)["error"]["message"][:20]) == (413, "more than 3 images i")
    assert not spy.batches


def test_requests_share_batches(detector):
    spy = Spy(detector)

    async def ask(client):
        return await asyncio.gather(
            *(one(picture(i))(client) for i in range(12)), many(picture(20), picture(21))(client)
        )

    replies = served(spy, ask, max_batch=5, batch_wait_ms=300)
    assert sum(spy.batches) == 14
    assert max(spy.batches) == 5
    for i, reply in enumerate(replies[:12]):
        assert_right(checked(reply)["images"][0], detector, picture(i))
    assert_right(checked(replies[12])["images"][1], detector, picture(21))


class Slow(Spy):
    """Takes its time, and fails where it is told."""

    def __init__(self, detector, seconds=0.0, fails=None) -> None:
        super().__init__(detector)
        self.seconds, self.fails = seconds, fails

    def predict_prepared(self, images, *, min_probability):
        time.sleep(self.seconds)
        if self.fails is not None and any((one.view == self.fails).all() for one in images):
            raise RuntimeError("at s3://key:secret@bucket")
        return super().predict_prepared(images, min_probability=min_probability)


class Held(Spy):
    """Works until it is released."""

    def __init__(self, detector) -> None:
        super().__init__(detector)
        self.begun, self.release, self.was_released = threading.Event(), threading.Event(), False

    def predict_prepared(self, images, *, min_probability):
        self.begun.set()
        self.was_released = self.release.wait(5)
        return super().predict_prepared(images, min_probability=min_probability)


def test_health_is_answered_while_the_network_works(detector):
    held = Held(detector)

    async def ask(client):
        waiting = asyncio.create_task(one(picture())(client))
        while not held.begun.is_set():
            await asyncio.sleep(0.01)
        health = await client.get("/healthz")
        held.release.set()
        await waiting
        return health.json(), (await client.get("/healthz")).json()

    assert served(held, ask) == ({"status": "ok", "waiting": 1}, {"status": "ok", "waiting": 0})
    assert held.was_released


def test_beyond_the_queue_clients_are_told_to_come_again(detector):
    async def ask(client):
        return await asyncio.gather(*(one(picture(i))(client) for i in range(9)), many(*[picture()] * 3)(client))

    *replies, large = served(Slow(detector, 0.3), ask, max_queue=4, max_batch=2)
    assert {reply.status_code for reply in replies} == {200, 503}
    assert sum(reply.status_code == 200 for reply in replies) == 4
    for refused in [large, *(reply for reply in replies if reply.status_code == 503)]:
        assert (refused.headers["retry-after"], checked(refused)["error"]["code"]) == ("1", "busy")
    alone = served(detector, many(*[picture()] * 6), max_queue=4)
    assert alone.status_code == 200  # where nothing else waits


def test_bytes_that_are_held_are_bounded(detector):
    async def ask(client):
        return await asyncio.gather(*(one(slowly(bytes(9000), 0.01))(client) for _ in range(20)))

    replies = served(detector, ask, max_request_bytes=10_000)
    assert {reply.status_code for reply in replies} == {422, 503}

    async def twice(client):
        await ask(client)
        return await one(picture())(client)

    assert served(detector, twice, max_request_bytes=10_000).status_code == 200  # they were released


def test_an_answer_that_takes_too_long_is_an_error(detector):
    async def ask(client):
        late = await one(picture())(client)
        slow.seconds = 0
        await asyncio.sleep(0.7)
        return late, await one(picture())(client)

    slow = Slow(detector, 0.9)
    late, after = served(slow, ask, timeout_s=0.3)
    assert (late.status_code, checked(late)["error"]["code"], after.status_code) == (504, "timeout", 200)


def test_a_body_that_does_not_arrive_is_an_error(detector):
    reply = served(detector, one(slowly(picture(0, 200, 200), 0.2, 100)), timeout_s=0.3)
    assert (reply.status_code, checked(reply)["error"]["code"]) == (408, "slow_request")


def test_a_failure_of_the_network_concerns_its_image_alone(detector, capfd):
    flat = np.full((60, 90, 3), 200, np.uint8)
    content = cv2.imencode(".png", flat)[1].tobytes()
    broken = Slow(detector, 0.05, detector.prepare(flat).view)

    async def ask(client):
        return await asyncio.gather(*(one(c)(client) for c in (picture(1), content, picture(2))))

    first, failed, third = served(broken, ask, batch_wait_ms=300)
    assert (failed.status_code, checked(failed)["error"]["code"]) == (500, "internal_error")
    assert "secret" not in failed.text
    assert_right(checked(first)["images"][0], detector, picture(1))
    assert_right(checked(third)["images"][0], detector, picture(2))


def test_the_log_of_a_failure_has_no_credentials(detector, caplog):
    flat = np.full((60, 90, 3), 200, np.uint8)
    content = cv2.imencode(".png", flat)[1].tobytes()
    assert served(Slow(detector, 0, detector.prepare(flat).view), one(content)).status_code == 500
    assert "s3://***@bucket" in caplog.text
    assert "secret" not in caplog.text


def test_what_tells_about_the_server(detector):
    async def ask(client):
        return [(await client.get(path)) for path in ("/", "/healthz", "/openapi.json", "/docs", "/predict")]

    info, health, described, docs, wrong = served(detector, ask, max_batch=7)
    assert (info.json()["landmarks"], len(info.json()["names"]), info.json()["options"]["max_batch"]) == (K, K, 7)
    assert health.status_code == 200
    assert set(info.json()["paths"]) == set(described.json()["paths"])
    assert "http" not in json.dumps(described.json())  # nothing from elsewhere
    assert (docs.status_code, docs.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")


def test_the_probability_of_a_found_landmark_is_that_of_the_detector_by_default():
    assert ServeOptions().min_probability == MIN_PROBABILITY


def test_numbers_that_json_does_not_know_are_null(detector):
    class Nowhere(Spy):
        def predict_prepared(self, images, *, min_probability):
            (seen,) = super().predict_prepared(images, min_probability=min_probability)
            xy = seen.xy.copy()
            xy[1] = np.nan
            return [replace(seen, xy=xy, facing=-0.25)]

    (entry,) = checked(served(Nowhere(detector), one(picture())))["images"]
    assert (entry["xy"][1], entry["facing"]) == ([None, None], -0.25)
