from service.leases import LeaseTable
from service.protocol import ReplicaReport
from tests.service.control_parts import report_of
from tests.service.governor.sightings import load


def newborn() -> ReplicaReport:
    blank = report_of("new")
    return ReplicaReport(
        replica_id=blank.replica_id,
        generation=0,
        variant_id="",
        prepared_operation=None,
        failed_operation=None,
        failure=None,
        metrics_address=blank.metrics_address,
        inflight=0,
    )


def ids(table: LeaseTable) -> list[str]:
    return [report.replica_id for report in table]


def test_a_replica_lives_for_one_lease_after_each_report() -> None:
    table = LeaseTable(3.0)
    table.renew(report_of("a"), 0.0)
    table.renew(report_of("b"), 0.0)
    for now in (1.0, 2.0, 3.0):
        table.sweep(now)
        table.renew(report_of("b"), now)
    assert ids(table) == ["a", "b"]
    table.sweep(3.1)
    assert ids(table) == ["b"]
    assert len(table) == 1


def test_only_what_differs_from_the_last_report_is_news() -> None:
    table = LeaseTable(3.0)
    assert table.renew(report_of("a"), 0.0)
    assert not table.renew(report_of("a", inflight=7, load=load(1.0)), 1.0)
    assert [(report.inflight, report.load) for report in table] == [(7, load(1.0))]
    assert table.renew(report_of("a", prepared="op1"), 2.0)
    assert [report.inflight for report in table] == [0]


def test_a_report_that_another_one_overtook_says_nothing_but_that_the_replica_lives() -> None:
    table = LeaseTable(3.0)
    table.renew(report_of("a", prepared="op1", load=load(2.0)), 0.0)
    assert not table.renew(report_of("a", load=load(1.0)), 2.0)
    table.sweep(2.0)
    table.sweep(3.5)
    assert [report.prepared_operation for report in table] == ["op1"]
    assert table.renew(report_of("a", load=load(3.0)), 4.0)


def test_a_replica_that_serves_nothing_yet_gets_no_lease() -> None:
    table = LeaseTable(3.0)
    assert not table.renew(newborn(), 0.0)
    assert len(table) == 0


def test_our_own_pause_is_not_taken_for_the_replicas_death() -> None:
    table = LeaseTable(3.0)
    table.renew(report_of("a"), 0.0)
    table.sweep(0.5)
    table.sweep(60.0)
    assert ids(table) == ["a"]
    table.sweep(61.0)
    table.sweep(62.0)
    table.sweep(63.1)
    assert ids(table) == []
