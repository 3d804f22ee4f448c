import json
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.runtime import InferenceRuntime
from tests.service.inference_parts import JSON, ON_ALL, PROMISED, client_of


def labels_of(entries: Any) -> set[str]:
    assert entries == sorted(entries, key=lambda entry: -entry["score"])
    return {entry["label"] for entry in entries}


BOTH = {"negative", "positive"}


async def test_the_hub_route_nests_one_string_as_its_clients_expect(client: httpx.AsyncClient) -> None:
    answer = await client.post("/", json={"inputs": "the film was good", "parameters": {}})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    (entries,) = answer.json()
    assert labels_of(entries) == BOTH


async def test_the_hub_route_takes_a_list_for_a_batch(client: httpx.AsyncClient) -> None:
    answer = await client.post("/", json={"inputs": ["good", "bad"], "parameters": {"top_k": 1}})
    assert [len(entries) for entries in answer.json()] == [1, 1]


async def test_the_tei_route_is_flat_for_one_input_and_nested_for_a_batch(client: httpx.AsyncClient) -> None:
    single = (await client.post("/predict", json={"inputs": "good"})).json()
    pair = (await client.post("/predict", json={"inputs": ["good", "bad"]})).json()
    batch = (await client.post("/predict", json={"inputs": [["good"], ["good", "bad"]]})).json()
    assert labels_of(single) == labels_of(pair) == BOTH
    assert batch == [single, pair] or all(
        one["score"] == pytest.approx(other["score"], abs=1e-5)
        for entries, others in zip(batch, [single, pair], strict=True)
        for one, other in zip(entries, others, strict=True)
    )
    assert single != pair


async def test_raw_scores_are_logits(client: httpx.AsyncClient) -> None:
    raw = (await client.post("/predict", json={"inputs": "good", "raw_scores": True})).json()
    none = (await client.post("/", json={"inputs": "good", "parameters": {"function_to_apply": "none"}})).json()
    assert raw == none[0]
    assert sum(entry["score"] for entry in raw) != pytest.approx(1.0)


async def test_every_promised_header_is_on_every_answer(client: httpx.AsyncClient) -> None:
    for path in ("/", "/predict"):
        answer = await client.post(path, json={"inputs": "good " * 100})
        assert set(PROMISED) <= set(answer.headers)
        assert answer.headers["x-truncated"] == "1"
        assert (answer.headers["x-variant"], answer.headers["x-sparsity"]) == ("a" * 16, "0.5000")


@pytest.mark.parametrize("given", ["abc-123", "a" * 128, "trace:1/2+3=4.5_6"])
async def test_a_sane_request_id_is_echoed_even_by_errors(client: httpx.AsyncClient, given: str) -> None:
    headers = {"x-request-id": given}
    good = await client.post("/", json={"inputs": "good"}, headers=headers)
    bad = await client.post("/", json={}, headers=headers)
    assert good.headers["x-request-id"] == bad.headers["x-request-id"] == bad.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "white space", "semi;colon", "<script>", "é"])
async def test_an_unfit_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.post("/", json={"inputs": "good"}, headers={b"x-request-id": given.encode()})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


BAD: list[tuple[str, dict[str, Any], int, str]] = [
    ("empty body", {"content": b"", "headers": JSON}, 400, "empty"),
    ("no body at all", {}, 415, "application/json"),
    ("white space", {"content": b"  \n", "headers": JSON}, 400, "empty"),
    ("not JSON", {"content": b"{inputs: 1}", "headers": JSON}, 400, "not JSON"),
    ("not UTF-8", {"content": b'{"inputs": "\xff\xfe"}', "headers": JSON}, 400, "UTF-8"),
    ("10 MB", {"content": b'{"inputs": "' + b"a" * 10_000_000 + b'"}', "headers": JSON}, 413, "4000000 bytes"),
    (
        "wrong content type",
        {"content": b'{"inputs": "a"}', "headers": {"content-type": "text/plain"}},
        415,
        "text/plain",
    ),
    ("no content type", {"content": b'{"inputs": "a"}'}, 415, "application/json"),
    ("no inputs", {"json": {}}, 422, "inputs"),
    ("empty list", {"json": {"inputs": []}}, 422, "empty list"),
    ("an empty text", {"json": {"inputs": ""}}, 422, "Text 0 is empty"),
    ("half a surrogate pair", {"content": b'{"inputs": "\\ud800"}', "headers": JSON}, 422, "surrogate"),
    ("wrong type", {"json": {"inputs": 3}}, 422, "not a number"),
    ("unknown field", {"json": {"inputs": "a", "sparsty": 0.5}}, 422, "sparsty"),
    ("million characters", {"json": {"inputs": "a" * 1_000_000}}, 413, "Text 0 has 1000000 characters; the limit is"),
    ("deep nesting", {"content": b"[" * 100_000, "headers": JSON}, 400, ""),
]


@pytest.mark.parametrize("path", ["/", "/predict"])
@pytest.mark.parametrize(("arguments", "status", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
async def test_bad_input_is_refused_in_clear_words(
    client: httpx.AsyncClient, path: str, arguments: dict[str, Any], status: int, words: str
) -> None:
    answer = await client.post(path, **arguments)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert words in problem["detail"]
    assert problem["error"] == problem["detail"]
    assert problem["error_type"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert set(ON_ALL) <= set(answer.headers)
    assert len(answer.content) < 2000
    assert (await client.post(path, json={"inputs": "good"})).status_code == 200


@pytest.mark.parametrize(
    ("path", "inputs"), [("/", ["good"] * 10_000), ("/predict", [["good"]] * 10_000), ("/", ["good"] * 257)]
)
async def test_too_many_texts_are_refused_with_count_and_limit(
    client: httpx.AsyncClient, path: str, inputs: list[Any]
) -> None:
    answer = await client.post(path, json={"inputs": inputs})
    assert answer.status_code == 413
    assert f"{len(inputs)} texts; the limit is 256" in answer.json()["detail"]


async def test_a_text_beyond_the_positions_is_refused_where_truncation_is_forbidden(client: httpx.AsyncClient) -> None:
    for path, options in (("/predict", {"truncate": False}), ("/", {"parameters": {"truncation": False}})):
        answer = await client.post(path, json={"inputs": "good " * 60, **options})
        assert answer.status_code == 422
        assert "Text 0 has 62 tokens; the model reads at most 48" in answer.json()["detail"]


async def test_an_unknown_parameter_is_named(client: httpx.AsyncClient) -> None:
    answer = await client.post("/", json={"inputs": "a", "parameters": {"temperature": 1}})
    assert answer.status_code == 422
    assert "parameters.temperature" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/predict", 405)])
async def test_unknown_routes_and_methods_are_problems_too(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == answer.json()["status"] == status
    assert set(ON_ALL) <= set(answer.headers)


async def test_the_key_guards_inference_and_nothing_else(runtime: InferenceRuntime) -> None:
    body = {"inputs": "good"}
    async with client_of(runtime, api_key="sécret") as client:
        right = {b"authorization": "Bearer sécret".encode()}
        for wrong in ({}, {b"authorization": b"Bearer wrong"}, {b"authorization": "Basic sécret".encode()}):
            for answer in (
                await client.post("/", json=body, headers=wrong),
                await client.post("/predict", json=body, headers=wrong),
                await client.get("/info", headers=wrong),
            ):
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.headers["content-type"] == "application/problem+json"
                assert set(ON_ALL) <= set(answer.headers)
        assert (await client.post("/", json=body, headers=right)).status_code == 200
        assert (await client.get("/info", headers=right)).status_code == 200
        for path in ("/health", "/metrics", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200


async def test_metrics_count_every_outcome_by_route(client: httpx.AsyncClient) -> None:
    await client.post("/", json={"inputs": "good"})
    await client.post("/predict", json={"inputs": "good"})
    await client.post("/predict", json={})
    await client.get("/health")
    page = await client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    counts = {
        (sample.labels["route"], sample.labels["outcome"]): sample.value
        for family in text_string_to_metric_families(page.text)
        for sample in family.samples
        if sample.name == "sparsedial_requests_total"
    }
    assert counts == {("/", "ok"): 1, ("/predict", "ok"): 1, ("/predict", "client_error"): 1}
    for stage in ("tokenization", "queue", "inference", "serialization"):
        assert f'sparsedial_stage_duration_seconds_count{{replica="r1",stage="{stage}"}} 2.0' in page.text


async def test_info_names_model_and_variant(client: httpx.AsyncClient) -> None:
    body = (await client.get("/info")).json()
    assert body["model_id"] == "tiny"
    assert body["sparsedial"]["variant"] == "a" * 16


async def test_the_openapi_page_describes_both_bodies_without_dangling_references(client: httpx.AsyncClient) -> None:
    page = (await client.get("/openapi.json")).json()
    assert "$defs" not in json.dumps(page)
    hub = page["paths"]["/"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(hub["properties"]) == {"inputs", "parameters", "options"}
    tei = page["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert set(tei["properties"]) == {"inputs", "truncate", "truncation_direction", "raw_scores", "parameters"}


@pytest.mark.parametrize("path", ["/", "/predict"])
@pytest.mark.parametrize(
    ("headers", "parameters"),
    [({"x-sparsity": "0.9"}, {}), ({}, {"sparsity": 0.9}), ({"x-quality": "best"}, {}), ({}, {"quality": "best"})],
)
async def test_a_level_that_is_not_there_is_refused(
    client: httpx.AsyncClient, path: str, headers: dict[str, str], parameters: dict[str, Any]
) -> None:
    answer = await client.post(path, json={"inputs": "good", "parameters": parameters}, headers=headers)
    assert (answer.status_code, answer.json()["error_type"]) == (422, "validation")


async def test_the_level_that_is_live_may_be_asked_for(client: httpx.AsyncClient) -> None:
    for asked in ({"x-sparsity": "0.5"}, {"x-quality": "high"}):
        assert (await client.post("/", json={"inputs": "good"}, headers=asked)).headers["x-sparsity"] == "0.5000"
