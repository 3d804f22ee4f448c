"""The guard of the policy's cascade with a real controller: replicas report counts, the controller follows."""

import asyncio
import json
from pathlib import Path
from typing import Any

from service.policy_desk import OFF, POLICY
from tests.service.control_parts import DENSE, HALF, Control, id_of, ladder_cascade, make_control, until
from tests.service.test_watch import running

CASCADE = ladder_cascade(HALF)
BESIDE = ladder_cascade(HALF, 0.98)
CASCADES = (CASCADE, BESIDE)
ID = CASCADE.cascade.cascade_id
CHOICE = {"sparsity": 0.5, "agreement": 0.99}


def default_of(control: Control) -> Any:
    return control.controller.view.status()["cascade"]


def told(control: Control) -> list[dict[str, Any]]:
    return [event.data for event in control.controller.view.log._events if event.kind == "cascade"]


async def looked_at(control: Control) -> None:
    """Wait until the controller watches the policy's cascade."""
    await until(lambda: control.value("cascade_active") == 1)


async def test_the_policy_s_cascade_below_its_floor_is_switched_off_and_the_committed_variant_stays(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, CASCADES, cascade=CHOICE) as (control, replica):
        await looked_at(control)
        assert not (await replica.ask()).cascade_off
        replica.saw(ID, 40, 20)
        await until(lambda: len(told(control)) == 1)
        desired = await replica.ask()
        assert desired.cascade_off and desired.policy.cascade is not None
        assert (desired.generation, desired.variant_id, desired.staged) == (1, id_of(DENSE), None)
        assert "0.500 of 40 texts" in default_of(control)["off"]
        await asyncio.sleep(0.05)
        assert told(control) == [default_of(control)], "it is told once"
        assert (control.value("cascade_wanted"), control.value("cascade_active")) == (1, 0)
        assert control.controller.view.policy().as_dict()["cascade"] == CHOICE
    again = make_control(tmp_path, cascades=CASCADES)
    await again.controller.start()
    assert default_of(again)["active"] is False, "a restart forgets nothing"
    await again.controller.stop()


async def test_a_cascade_that_holds_its_floor_goes_on_and_is_shown_beside_what_rows_say(tmp_path: Path) -> None:
    async with running(tmp_path, CASCADES, cascade=CHOICE) as (control, replica):
        replica.saw(ID, 500, 480)
        labels = {"sparsity": "0.5", "target": "0.99"}
        await until(lambda: control.value("cascade_online_texts", **labels) == 500)
        (worth,) = default_of(control)["of"]
        assert (worth["agreement"], worth["agreement_floor"], worth["online"]["agreement"]) == (0.99, 0.9, 0.96)
        assert default_of(control)["active"] and default_of(control)["off"] is None
        assert control.value("cascade_online_agreement_ratio", **labels) == 0.96
        assert control.value("cascade_agreement_ratio", **labels) == 0.99
        assert control.value("cascade_active") == 1
        assert control.value("cascade_agreement_floor_ratio") == 0.9
        assert control.value("online_texts", sparsity="0.5") is None, "its level answered nothing by itself"


async def test_a_cascade_that_only_requests_ask_for_is_shown_and_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path, CASCADES, cascade=CHOICE) as (control, replica):
        replica.saw(BESIDE.cascade.cascade_id, 40, 20)
        await until(lambda: control.value("cascade_online_texts", sparsity="0.5", target="0.98") == 40)
        await asyncio.sleep(0.05)
        assert default_of(control)["active"]
        await control.controller.change_policy({"cascade": None})
        await until(lambda: control.value("cascade_wanted") == 0)
        assert (default_of(control), control.value("cascade_active")) == (None, 0)


async def test_an_operator_lets_it_answer_again_and_what_was_counted_before_counts_no_more(tmp_path: Path) -> None:
    async with running(tmp_path, CASCADES, cascade=CHOICE) as (control, replica):
        await looked_at(control)
        replica.saw(ID, 40, 20)
        await until(lambda: len(told(control)) == 1)
        await control.controller.change_policy({"cascade": CHOICE})
        await looked_at(control)
        await asyncio.sleep(0.05)
        assert default_of(control)["active"] and not (await replica.ask()).cascade_off
        replica.saw(ID, 80, 40)
        await until(lambda: len(told(control)) == 2)


async def test_what_was_counted_before_the_policy_named_it_does_not_count_against_it(tmp_path: Path) -> None:
    async with running(tmp_path, CASCADES) as (control, replica):
        replica.saw(ID, 40, 20)
        await until(lambda: control.value("cascade_online_texts", sparsity="0.5", target="0.99") == 40)
        await control.controller.change_policy({"cascade": CHOICE})
        await asyncio.sleep(0.1)
        assert default_of(control)["active"]


async def test_a_controller_without_cascades_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as (control, _):
        assert default_of(control) is None
        assert control.value("cascade_wanted") == 0
        assert OFF not in json.loads((tmp_path / POLICY).read_text())["policy"]
