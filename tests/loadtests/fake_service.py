"""A service as a load test sees it: answers with a generation, has a dial, and breaks its promises when told to."""

import asyncio
import math
import threading
from collections import Counter, defaultdict
from collections.abc import Callable

from aiohttp import web

TOKEN = "fake-token"
LEVELS = (0.0, 0.3, 0.5, 0.8)


class FakeService:
    """One HTTP server in a thread of its own, on a free loopback port. It answers one request at a time."""

    def __init__(self) -> None:
        self.url = ""
        self.sparsity = 0.0
        self.generation = 1
        self.answered = 0
        self.dials: list[float] = []
        self.status_of: Callable[[int], int] = lambda number: 200
        """Status of the n-th request, counted from 0."""
        self.stall_s: Callable[[int], float] = lambda number: 0.0
        """Seconds that the n-th request holds up everything."""
        self.generation_of: Callable[[int], int] = lambda number: self.generation
        self.places: float = math.inf
        """Requests that may wait or run; others are refused."""
        self.retry_after: str | None = "1"
        self.resident_bytes: Callable[[], int] = lambda: 1_000_000
        self.policy: dict[str, object] = {
            "mode": "manual",
            "slo_p99_ms": None,
            "shadow_fraction": 0.02,
            "agreement_floor": None,
        }
        self.policies: list[dict[str, object]] = []
        """Every change of the policy, in order."""
        self.spike_level = 0.5
        """What answers in mode auto while more than two requests are inside."""
        self.refused: set[float] = set()
        """Levels that fail to build."""
        self.label_of: Callable[[str, float], str] = lambda text, sparsity: "good" if sparsity < 0.8 else "bad"
        """Label that a level gives a text."""
        self.compares: Callable[[int], bool] = lambda number: True
        """Whether the n-th text of a sparse level is answered by the dense model too, while all are sampled."""
        self.operations: dict[str, dict[str, object]] = {}
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        """By variant: texts and agreed, labelled and right."""
        self._given: dict[str, tuple[str, str]] = {}
        """Request id -> variant and label."""
        self._turn = asyncio.Lock()
        self._inside = 0
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _serve(self) -> None:
        app = web.Application()
        app.router.add_post("/predict", self._predict)
        app.router.add_get("/info", self._info)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/health", self._health)
        app.router.add_post("/v1/feedback", self._feedback)
        app.router.add_get("/admin/variants", self._variants)
        app.router.add_get("/admin/operations/{id}", self._operation)
        app.router.add_put("/admin/sparsity", self._dial)
        app.router.add_get("/admin/sparsity", self._state)
        app.router.add_get("/admin/frontier", self._frontier)
        app.router.add_get("/admin/policy", self._get_policy)
        app.router.add_put("/admin/policy", self._put_policy)
        runner = web.AppRunner(app, access_log=None)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _predict(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self._inside >= self.places:
            told = {"retry-after": self.retry_after} if self.retry_after else {}
            return web.json_response({}, status=429, headers=told)
        self._inside += 1
        try:
            return await self._answer(body.get("inputs"), request.headers.get("x-sparsity"))
        finally:
            self._inside -= 1

    async def _answer(self, text: str | None, wanted: str | None) -> web.Response:
        async with self._turn:
            number = self.answered
            self.answered += 1
            if stall_s := self.stall_s(number):
                await asyncio.sleep(stall_s)
            live = self.spike_level if self.policy["mode"] == "auto" and self._inside > 2 else self.sparsity
            sparsity = live if wanted is None else float(wanted)
            label = self.label_of(text or "", sparsity)
            if sparsity and self.policy["shadow_fraction"] == 1.0 and self.compares(number):
                self.counts[variant_of(sparsity)]["texts"] += 1
                self.counts[variant_of(sparsity)]["agreed"] += label == self.label_of(text or "", 0.0)
            self._given[f"request-{number}"] = variant_of(sparsity), label
            headers = {
                "x-request-id": f"request-{number}",
                "x-generation": str(self.generation_of(number)),
                "x-sparsity": f"{sparsity:.4f}",
                "x-variant": variant_of(sparsity),
            }
            scores = [{"label": label, "score": 0.9}, {"label": "other", "score": 0.1}]
            told = [] if text is None else scores  # a body of another shape has no text to label
            return web.json_response(told, status=self.status_of(number), headers=headers)

    async def _feedback(self, request: web.Request) -> web.Response:
        body = await request.json()
        variant, label = self._given[body["request_id"]]
        self.counts[variant]["labelled"] += 1
        self.counts[variant]["right"] += label == body["label"]
        return web.json_response({"variant_id": variant})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _variants(self, request: web.Request) -> web.Response:
        known = {0.0, self.sparsity, *self.dials}
        return web.json_response({"variants": [{"variant_id": variant_of(one)} for one in known]})

    async def _operation(self, request: web.Request) -> web.Response:
        known = self.operations.get(request.match_info["id"])
        return web.json_response(known or {"error": "unknown"}, status=200 if known else 404)

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "model_id": "fake-model",
                "version": "9.9",
                "sparsedial": {"replicas": 2, "threads": 1, "generation": 3, "versions": {"torch": "1.2"}},
            }
        )

    async def _metrics(self, request: web.Request) -> web.Response:
        level = 'sparsedial_level_accuracy_ratio{{replica="control",sparsity="{:g}"}} {}'
        lines = [level.format(each, 0.9 - each / 10) for each in LEVELS] + [level.format(0.9, 0.5)]
        lines.append(f'process_resident_memory_bytes{{replica="model"}} {float(self.resident_bytes())}')
        lines.append('sparsedial_accuracy_floor_ratio{replica="control"} 0.8')
        return web.Response(text="\n".join(lines) + "\n")

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "sparsity": self.sparsity,
                "scorer": "fisher",
                "generation": self.generation,
                "variant": variant_of(self.sparsity),
                "replicas": [{"id": name, "generation": self.generation} for name in "ab"],
                "online": online_of(self.counts[variant_of(self.sparsity)]),
            }
        )

    async def _get_policy(self, request: web.Request) -> web.Response:
        return web.json_response(self.policy)

    async def _put_policy(self, request: web.Request) -> web.Response:
        change = await request.json()
        self.policies.append(change)
        self.policy |= change
        return web.json_response(self.policy)

    async def _frontier(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "no token"}, status=401)
        known = {*LEVELS, *self.dials}
        return web.json_response({"levels": [{"requested_sparsity": level} for level in sorted(known)]})

    async def _dial(self, request: web.Request) -> web.Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return web.json_response({"error": "no token"}, status=401)
        sparsity = (await request.json())["sparsity"]
        self.dials.append(sparsity)
        number = len(self.dials)
        if sparsity in self.refused:
            failed = {"id": f"op-{number}", "phase": "failed", "generation": None, "error": "below the floor"}
            return web.json_response(failed, status=422)
        if sparsity != self.sparsity:
            self.sparsity, self.generation = sparsity, self.generation + 1
        committed = {"id": f"op-{number}", "phase": "committed", "generation": self.generation}
        self.operations[f"op-{number}"] = committed | {"variant": variant_of(sparsity)}
        return web.json_response(self.operations[f"op-{number}"])


def variant_of(sparsity: float) -> str:
    return f"variant-{sparsity:g}"


def online_of(counts: Counter[str]) -> dict[str, object] | None:
    texts, labelled = counts["texts"], counts["labelled"]
    if not (texts or labelled):
        return None
    return {
        "texts_compared": texts,
        "agreement": counts["agreed"] / texts if texts else None,
        "labelled_texts": labelled,
        "accuracy": counts["right"] / labelled if labelled else None,
    }
