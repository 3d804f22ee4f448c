import json

import pytest

from pruning.spec import PruneSpec
from service.plan import plan_level
from tests.service.cli_parts import refused, run
from tests.service.fake_admin import FakeAdmin
from tests.service.test_plan import FACTS, ROWS

pytestmark = pytest.mark.usefixtures("own_environment")

PLAN = plan_level(PruneSpec(sparsity=0.6), ROWS, FACTS)


def test_plan_asks_for_a_sparsity_or_for_bounds_and_says_what_it_rests_on(admin: FakeAdmin) -> None:
    admin.answers(200, PLAN)
    result = run("plan", "0.6", "--scorer", "taylor", "--url", admin.url, "--token", "t")
    for words in (
        "sparsity 0.6: predicted between 0.5 and 0.7\n",
        "passes the floor 85.0%",
        "built in 1.1 s",
        "3 times",
    ):
        assert words in result.stdout
    bounded = run("plan", "--p99-ms", "20", "--accuracy", "0.88", "--url", admin.url, "--token", "t", "--json")
    assert json.loads(bounded.stdout) == PLAN
    assert [(asked.method, asked.path, asked.body) for asked in admin.asked] == [
        ("POST", "/admin/plan", {"sparsity": 0.6, "scorer": "taylor"}),
        ("POST", "/admin/plan", {"p99_ms": 20.0, "accuracy": 0.88}),
    ]


@pytest.mark.parametrize("arguments", [(), ("0.5", "--p99-ms", "20"), ("--scorer", "taylor", "--accuracy", "0.9")])
def test_plan_wants_a_sparsity_or_bounds(arguments: tuple[str, ...]) -> None:
    assert refused(run("plan", *arguments), 2, "plan wants a SPARSITY")
