from dataclasses import replace

from pruning.spec import PruneSpec
from service.documents import targets_document
from service.fleet import Fleet
from service.operations import Phase
from service.policy import Policy
from service.protocol import Peer, Staged
from tests.service.control_parts import DENSE, FLOOR, HALF, choice_of, first_state, id_of, report_of
from tests.service.rollout_parts import in_phase

POLICY = Policy(accuracy_floor=FLOOR)


def fleet_of(*replica_ids: str) -> Fleet:
    fleet = Fleet(
        lease_s=3.0, ladder=(id_of(DENSE), id_of(HALF)), metrics_address="127.0.0.1:3999", policy=lambda: POLICY
    )
    for replica_id in replica_ids:
        fleet.hear(report_of(replica_id), 0.0)
    return fleet


def test_orders_keep_their_version_until_something_in_them_changes() -> None:
    fleet, state = fleet_of("a"), first_state()
    first = fleet.orders(state)
    assert fleet.orders(state) is first
    assert fleet.orders(replace(state, version=2)) is first
    fleet.hear(report_of("b"), 1.0)
    second = fleet.orders(state)
    assert second.version > first.version
    assert [peer.replica_id for peer in second.peers] == ["control", "a", "b"]
    fleet.drain()
    assert fleet.orders(state).draining
    assert fleet.orders(state).version > second.version


def test_replicas_are_told_what_the_guard_turned_back() -> None:
    fleet, state = fleet_of(), first_state()
    before = fleet.orders(state)
    after = fleet.orders(replace(state, distrusted=("half",)))
    assert (before.distrusted, after.distrusted) == (frozenset(), {"half"})
    assert after.version > before.version


def test_a_restarted_controllers_orders_have_higher_versions() -> None:
    fleet, state = fleet_of(), first_state()
    for number in range(50):
        fleet.hear(report_of(f"r{number}"), 0.0)
        last = fleet.orders(state)
    assert fleet_of().orders(replace(state, version=state.version + 1)).version > last.version


def test_a_variant_is_staged_while_it_is_prepared_and_only_then() -> None:
    fleet = fleet_of("a")
    staged = Staged(operation_id="op1", variant_id=id_of(HALF))
    wishes: dict[Phase | None, Staged | None] = {None: None, Phase.BUILDING: None, Phase.PREPARING: staged}
    for phase, wish in wishes.items():
        assert fleet.orders(in_phase(phase)).staged == wish


def test_reports_are_told_apart_by_operation() -> None:
    fleet, state = fleet_of("a"), in_phase(Phase.PREPARING)
    fleet.hear(report_of("b", prepared="op1"), 0.0)
    fleet.hear(report_of("c", prepared="op0", failed="op1", failure="out of memory"), 0.0)
    fleet.hear(report_of("d", failed="op0", failure="old"), 0.0)
    event = fleet.reported(state, 5.0)
    assert event is not None
    assert event.live == frozenset("abcd")
    assert event.prepared == frozenset("b")
    assert event.failed == {"c": "out of memory"}
    tick = fleet.time_passed(state, 5.0)
    assert tick is not None and tick.waiting == frozenset("acd")


def test_idle_replicas_have_nothing_to_say() -> None:
    fleet, state = fleet_of("a"), first_state()
    assert fleet.reported(state, 5.0) is None
    assert fleet.time_passed(state, 5.0) is None


def test_a_generation_is_reached_by_the_last_live_replica() -> None:
    fleet = fleet_of("a")
    fleet.hear(report_of("b", generation=2, inflight=3), 0.0)
    assert fleet.reached(2) == 1
    fleet.hear(report_of("a", generation=3, inflight=4), 0.0)
    assert (fleet.reached(2), fleet.reached(3)) == (2, 2)
    assert fleet.inflight() == 7
    assert fleet_of().reached(5) == 5


def test_targets_name_every_live_page_and_no_dead_one() -> None:
    fleet = fleet_of("a")
    fleet.sweep(0.0)
    control = {"targets": ["127.0.0.1:3999"], "labels": {"replica": "control", "deployment": "control"}}
    assert targets_document(fleet.peers()) == [
        control,
        {"targets": [report_of("a").metrics_address], "labels": {"replica": "a", "deployment": "model"}},
    ]
    for now in (1.0, 2.0, 3.0, 4.0):
        fleet.sweep(now)
    assert targets_document(fleet.peers()) == [control]


def test_a_controller_without_a_page_is_no_peer() -> None:
    fleet = Fleet(lease_s=3.0, ladder=(), metrics_address="", policy=lambda: POLICY)
    fleet.hear(report_of("a"), 0.0)
    assert fleet.peers() == (Peer(replica_id="a", metrics_address=report_of("a").metrics_address),)


def test_in_use_is_what_replicas_answer_with_and_may_be_told_to_load() -> None:
    state = replace(first_state(), previous=choice_of(PruneSpec(sparsity=0.6)))
    fleet = fleet_of("a")
    fleet.hear(report_of("b", spec=PruneSpec(sparsity=0.2)), 0.0)
    assert fleet.in_use(state) == {
        id_of(DENSE),
        id_of(HALF),
        id_of(PruneSpec(sparsity=0.6)),
        id_of(PruneSpec(sparsity=0.2)),
    }
