"""Who is refused: other hosts, other sites, and changes without the page's token."""

import pytest

from ray_kplm.view.guard import is_loopback

from .conftest import HOST, TOKEN, asked, get, open_workspace, post


@pytest.fixture(scope="module")
def workspace(finished, tmp_path_factory):
    return open_workspace(finished, labels=str(tmp_path_factory.mktemp("labels") / "labels.json"))


def test_the_page_loads_nothing_from_elsewhere_and_nobody_may_embed_it(workspace):
    reply = asked(workspace, get("/"), headers={})
    assert reply.status_code == 200
    policy = dict(line.strip().split(" ", 1) for line in reply.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert reply.headers["cross-origin-resource-policy"] == "same-origin"
    assert f'content="{TOKEN}"' in reply.text
    assert "//" not in reply.text.replace("<!doctype", "")
    for name in ("main.js", "editor.js", "view.css"):
        part = asked(workspace, get(f"/static/{name}"), headers={})
        assert part.status_code == 200
        assert "https://" not in part.text


@pytest.mark.parametrize("host", ["127.0.0.1:8123", "localhost:8123", "LOCALHOST", "[::1]:9", "[::1]", "127.0.0.1"])
def test_names_of_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8123", "evil.example:127.0.0.1", "localhost.evil", "", ":8123",
             "10.0.0.1", "127.0.0.1:80:80", "[::2]", "0.0.0.0", "127.0.0.1:8123@evil.example", "localhost:x"],
)  # fmt: skip
def test_other_names_are_refused(host, workspace):
    assert not is_loopback(host)
    for path in ("/", "/api/state", "/image/0", "/static/main.js"):
        reply = asked(workspace, get(path), headers={"Host": host})
        assert reply.status_code == 403
        assert TOKEN not in reply.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8123"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "image"},
    ],
)
def test_other_sites_are_refused_even_with_the_token(headers, workspace):
    token = {"X-Kplm-Token": TOKEN}
    body = {"image": 0, "points": [None] * 4, "names": list("abcd"), "revision": None}
    assert asked(workspace, post("/api/label", body), headers={**token, **headers}).status_code == 403
    assert asked(workspace, get("/image/0"), headers=headers).status_code == 403
    assert asked(workspace, get("/api/state"), headers=headers).status_code == 403
    assert not workspace.labels.labels


def test_a_link_on_another_site_opens_the_page(workspace):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert asked(workspace, get("/"), headers=link).status_code == 200
    assert asked(workspace, get("/image/0"), headers=link).status_code == 403


@pytest.mark.parametrize("headers", [{}, {"X-Kplm-Token": "another"}, {"X-Kplm-Token": ""}, {"X-Kplm-Token": b"\xe9"}])
@pytest.mark.parametrize("path", ["label", "unlabel", "names", "edit", "adapt"])
def test_changes_need_the_token_of_the_page(path, headers, workspace):
    reply = asked(workspace, post(f"/api/{path}", {}), headers={"Origin": HOST, **headers})
    assert (reply.status_code, "load the page again" in reply.json()["error"]) == (403, True)


@pytest.mark.parametrize("way", ["put", "delete", "patch", "options"])
def test_other_methods_are_none(way, workspace):
    assert asked(workspace, lambda client: getattr(client, way)("/api/label")).status_code == 405


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/static/page.html",
             "/static/", "/image/..%2f..%2fetc%2fpasswd", "/image/-1", "/api", "/etc/passwd"],
)  # fmt: skip
def test_there_is_no_way_to_other_files(path, workspace):
    reply = asked(workspace, get(path))
    assert reply.status_code == 404
    assert "import" not in reply.text


def test_an_image_that_there_is_not_is_an_error(workspace):
    assert asked(workspace, get("/image/24")).status_code == 422
    assert asked(workspace, get("/image/99999999999999999999")).status_code == 422
