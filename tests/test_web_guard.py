"""Who gets in: tokens, keys, sessions, hosts, origins, sizes; and nothing secret where it can be read."""

import logging
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from db import keys, lookup
from router import keyring
from router.web import guard, tokens
from tests.commands import Shell, refused
from tests.gateways import TOKEN, Served, sandbox_of
from tests.lanes import KEY, MODEL

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
PAGE = {"X-Shunter-Page": "1"}
sandbox = sandbox_of(answer_tokens=5)


@pytest.fixture
def anyone(served: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=served.url, timeout=20) as client:
        yield client


@pytest.fixture
def page(anyone: httpx2.Client) -> httpx2.Client:
    """A browser that has logged in."""
    assert anyone.post("/api/login", json={"token": TOKEN}).status_code == 204
    return anyone


def make_key(served: Served, **wish: Any) -> tuple[str, dict[str, str]]:
    limits: dict[str, Any] = {"usd": None, "per": "month", "per_minute": None, "lanes": None}
    key_id, words = keyring.create(served.router.store, "somebody", **limits | wish)
    return key_id, {"Authorization": f"Bearer {words}"}


# ---- tokens and sessions ----


@pytest.mark.parametrize("given", ["", "Bearer wrong", f"Basic {TOKEN}", "Bearer shunter-0123456789ab-x",
                                   f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xe4\xf6"])  # fmt: skip
@pytest.mark.parametrize("path", ["/api/jobs", "/v1/models", "/api/boards/jobs", "/api/openapi.json"])
def test_nobody_gets_in_without_a_token(anyone: httpx2.Client, given: str, path: str) -> None:
    answer = anyone.get(path, headers={"Authorization": given.encode("latin-1")} if given else {})
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_health_is_open_and_says_nothing_more(anyone: httpx2.Client) -> None:
    assert anyone.get("/healthz").json() == {"status": "ok"}
    assert anyone.get("/readyz").json() == {"ready": True, "why": None}


def test_a_session_is_a_cookie_that_no_script_reads_and_no_secret(anyone: httpx2.Client) -> None:
    cookie = anyone.post("/api/login", json={"token": TOKEN}).headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert anyone.get("/api/me").json()["admin"]
    assert anyone.post("/api/logout", headers=PAGE).status_code == 204
    assert anyone.get("/api/me").status_code == 401


@pytest.mark.parametrize("body", [{"token": "wrong"}, {"token": 3}, {}, {"token": ""}])
def test_a_wrong_token_makes_no_session(anyone: httpx2.Client, body: dict[str, Any]) -> None:
    assert anyone.post("/api/login", json=body).status_code == 401


@pytest.mark.parametrize("cookie", ["x", "..", "99999999999.a.b", "9" * 400, "99999999999.x."])
def test_a_forged_session_opens_nothing(anyone: httpx2.Client, cookie: str) -> None:
    assert anyone.get("/api/me", headers={"Cookie": f"shunter={cookie}"}).status_code == 401


def test_a_session_ends(served: Served) -> None:
    made = served.app.state.tokens.session(1000.0)
    assert served.app.state.tokens.of_session(made, 1001.0)
    assert served.app.state.tokens.of_session(made, 1000.0 + tokens.SESSION_S + 1) is None


def test_a_token_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    token, path, made = tokens.installed(tmp_path / "data")
    assert made
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert tokens.installed(tmp_path / "data") == (token, path, False)
    assert len(token) > 40


# ---- other sites ----


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "https://evil.example", **PAGE}, {"Origin": "null", **PAGE},
     {"Sec-Fetch-Site": "cross-site", **PAGE}, {"Origin": "http://127.0.0.1:1", **PAGE}],
)  # fmt: skip
def test_another_site_changes_nothing_with_the_cookie(page: httpx2.Client, headers: dict[str, str]) -> None:
    answer = page.post("/api/chat/stream", json={"message": "hi"}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "cross_site")


def test_the_page_itself_does(page: httpx2.Client, served: Served) -> None:
    headers = {"Origin": served.url, "Sec-Fetch-Site": "same-origin", **PAGE}
    assert page.post("/api/chat/stream", json={"message": "hi"}, headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil", "@"])
@pytest.mark.parametrize("path", ["/", "/healthz", "/api/me"])
def test_a_foreign_name_for_this_machine_is_refused(anyone: httpx2.Client, host: str, path: str) -> None:
    answer = anyone.get(path, headers={"Host": host})
    assert answer.status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:8088", "127.0.0.1", "[::1]:80", "LLM.example", "10.0.0.1:9"])
def test_its_own_names_and_addresses_are_good(anyone: httpx2.Client, host: str) -> None:
    assert anyone.get("/healthz", headers={"Host": host}).status_code == 200


def test_every_answer_forbids_scripts_of_others(page: httpx2.Client) -> None:
    for path in ("/", "/healthz", "/api/me", "/nothing", "/api/jobs/none"):
        headers = page.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


# ---- sizes ----


def test_a_body_that_is_too_large_is_refused(
    anyone: httpx2.Client, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MOST_BODY", 1000)
    for content in (b"x" * 2000, iter([b"x" * 600, b"x" * 600])):
        answer = anyone.post("/v1/chat/completions", content=content, headers=served.headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_body_that_does_not_come_is_not_waited_for(
    anyone: httpx2.Client, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_S", 0.1)

    def slow() -> Iterator[bytes]:
        yield b"{"
        import time

        time.sleep(0.5)
        yield b"}"

    answer = anyone.post("/v1/chat/completions", content=slow(), headers=served.headers)
    assert answer.status_code == 408


# ---- keys ----


def test_a_key_asks_and_sees_its_own_jobs_alone(anyone: httpx2.Client, served: Served) -> None:
    key_id, mine = make_key(served)
    _, theirs = make_key(served)
    asked = anyone.post("/v1/chat/completions", json=ASK, headers=mine)
    job = asked.headers["x-shunter-job"]
    assert asked.status_code == 200
    assert anyone.get(f"/api/jobs/{job}", headers=mine).json()["tags"] == {"gateway_key": key_id}
    for path in (f"/api/jobs/{job}", f"/api/jobs/{job}/stream"):
        assert anyone.get(path, headers=theirs).status_code == 404
        assert anyone.get(path, headers=served.headers).status_code == 200
    assert anyone.get("/api/jobs", headers=mine).status_code == 403
    assert anyone.get("/api/boards/jobs", headers=mine).status_code == 403
    assert anyone.post("/api/login", json={"token": mine["Authorization"].split()[1]}).status_code == 401


def test_two_keys_may_use_the_same_client_key(anyone: httpx2.Client, served: Served) -> None:
    answers = [anyone.post("/v1/chat/completions", json=ASK, headers={**make_key(served)[1], "X-Shunter-Key": "same"})
               for _ in range(2)]  # fmt: skip
    assert answers[0].headers["x-shunter-job"] != answers[1].headers["x-shunter-job"]


def test_a_conversation_is_its_key_s_own(anyone: httpx2.Client, served: Served) -> None:
    (_, mine), (_, theirs) = make_key(served), make_key(served)
    talk = anyone.post("/api/chat/stream", json={"message": "hi"}, headers=mine).headers["x-shunter-conversation"]
    assert anyone.get(f"/api/conversations/{talk}", headers=mine).status_code == 200
    assert anyone.get(f"/api/conversations/{talk}", headers=theirs).status_code == 404
    assert anyone.get("/api/conversations", headers=theirs).json()["conversations"] == []


def test_a_revoked_key_opens_nothing(anyone: httpx2.Client, served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "KNOWN_S", 0.0)
    key_id, mine = make_key(served)
    assert anyone.get("/v1/models", headers=mine).status_code == 200
    keyring.revoke(served.router.store, key_id)
    assert anyone.get("/v1/models", headers=mine).status_code == 401


def test_a_key_s_lanes_rate_and_budget_hold(anyone: httpx2.Client, served: Served) -> None:
    _, batch_alone = make_key(served, lanes=["batch"])
    barred = anyone.post("/v1/chat/completions", json=ASK, headers=batch_alone)
    assert (barred.status_code, barred.json()["error"]["code"]) == (403, "lane_not_allowed")
    _, slow = make_key(served, per_minute=1)
    answers = [anyone.post("/v1/chat/completions", json=ASK, headers=slow) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert 0 < int(answers[1].headers["retry-after"]) <= 60
    _, poor = make_key(served, usd="0.0000001")
    broke = anyone.post("/v1/chat/completions", json=ASK, headers=poor)
    assert (broke.status_code, broke.json()["error"]["type"]) == (429, "insufficient_quota")
    assert broke.headers["x-should-retry"] == "false"


def test_only_hashes_of_keys_are_kept(served: Served) -> None:
    _, mine = make_key(served)
    words = mine["Authorization"].split()[1]
    assert served.router.store.path
    assert words.encode() not in Path(served.router.store.path).read_bytes()


def test_no_secret_is_in_a_log(
    anyone: httpx2.Client, served: Served, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    _, mine = make_key(served)
    for headers in (served.headers, mine, {"Authorization": "Bearer shunter-0123456789ab-secretsecret"}):
        anyone.post("/v1/chat/completions", json=ASK, headers=headers)
        anyone.post("/v1/chat/completions", content=b"{", headers=headers)
    anyone.post("/api/login", json={"token": TOKEN})
    said = caplog.text + "".join(capsys.readouterr())
    ours = "\n".join(line for line in said.splitlines() if "httpx2" not in line)
    for secret in (TOKEN, mine["Authorization"].split()[1], "secretsecret", KEY):
        assert secret not in ours


# ---- the command ----


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Shell:
    return Shell(monkeypatch, capsys, tmp_path)


def test_keys_are_made_listed_and_revoked(shell: Shell) -> None:
    made = shell("keys", "create", "ci", "--usd", "5", "--per-minute", "20", "--lane", "batch", "--json").json
    assert set(made) == {"id", "key"}
    assert shell("keys", "create", "plain").out.startswith("shunter-")
    listed = shell("keys", "list", "--json").json["keys"]
    assert [one["name"] for one in listed] == ["ci", "plain"]
    assert (listed[0]["lanes"], listed[0]["budget"]["limit_usd"], listed[0]["requests_per_minute"]) == (
        ["batch"],
        "5",
        20,
    )
    assert made["key"] not in shell("keys", "list").out
    assert shell("keys", "revoke", made["id"]).code == 0
    refused(shell("keys", "revoke", made["id"]), 2, "no key")
    refused(shell("keys", "create", "x", "--lane", "fast"), 2, "--lane")
    assert shell("keys", "list", "--json").json["keys"][0]["revoked_at"]


def test_others_than_this_machine_need_a_key(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(shell("serve", "--host", "0.0.0.0", "--port", "0"), 2, "shunter keys create")


def test_a_key_that_is_looked_up_twice_is_the_same(served: Served) -> None:
    key_id, mine = make_key(served)
    words = mine["Authorization"].split()[1]
    found = keys.find(served.router.store, key_id, words)
    assert found
    assert keys.find(served.router.store, key_id, words + "x") is None
    assert lookup.counts(served.router.store)
