"""The guard and the canary with a real controller: replicas report counts, the rollout follows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pruning.spec import PruneSpec
from service.control_metrics import ControlMetrics
from service.documents import online_document, operation_document
from service.events import GuardTripped, LevelChosen
from service.ladder_cascades import LadderCascade
from service.operations import Asker, Cause, Phase, RolloutState
from service.policy import CascadeChoice, Policy
from service.policy_desk import PolicyDesk
from service.protocol import ReplicaReport
from service.rollout import advance
from service.tally import Compared, Tally
from service.watch import RETRY_S, Watch
from tests.service.control_parts import (
    DENSE,
    FLOOR,
    HALF,
    Control,
    ModelReplica,
    choice_of,
    first_state,
    full_disk,
    id_of,
    ladder_cascade,
    make_control,
    manifest_of,
    put,
    report_of,
    until,
)
from tests.service.rollout_parts import in_phase, reported


class CountingReplica(ModelReplica):
    """Reports what the test lets it count."""

    tallies: tuple[Tally, ...] = ()

    def report(self) -> ReplicaReport:
        return replace(super().report(), tallies=self.tallies)

    def saw(self, variant_id: str, texts: int, agreed: int) -> None:
        self.tallies = saw(variant_id, texts, agreed).tallies


def saw(variant_id: str, texts: int, agreed: int) -> ReplicaReport:
    """A replica's report of what it counted."""
    slices = (Compared(label="a", length="1-8", texts=texts, agreed=agreed, kl_sum=0.0),)
    return replace(report_of(), tallies=(Tally(variant_id=variant_id, answered=texts, compared=slices),))


@asynccontextmanager
async def running(
    root: Path, cascades: tuple[LadderCascade, ...] = (), **members: object
) -> AsyncIterator[tuple[Control, CountingReplica]]:
    """A controller with a policy and one replica that follows it."""
    control = make_control(root, cascades=cascades)
    put(control.builder.store, HALF)
    await control.controller.start()
    control.clock.now += 4.0
    await control.controller.change_policy({"agreement_floor": 0.9, **members})
    replica = CountingReplica(control.controller)
    following = asyncio.create_task(replica.follow())
    yield control, replica
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await control.controller.stop()


def phase_of(control: Control, operation_id: str) -> Phase:
    return control.controller.operation(operation_id).phase


async def test_a_canary_that_agrees_is_promoted(tmp_path: Path) -> None:
    async with running(tmp_path, canary_fraction=0.2) as (control, replica):
        operation = await control.controller.request_change(HALF)
        await until(lambda: phase_of(control, operation.id) is Phase.TRYING)
        desired = await replica.ask()
        assert desired.trial is not None and desired.trial.fraction == 0.2
        assert desired.generation == 1
        replica.saw(id_of(HALF), 300, 297)
        await until(lambda: phase_of(control, operation.id) is Phase.COMMITTED)
        assert "try" in control.controller.operation(operation.id).durations_s()
        assert (await replica.ask()).trial is None


async def test_a_canary_that_disagrees_is_turned_back_and_traffic_never_moved(tmp_path: Path) -> None:
    async with running(tmp_path, canary_fraction=0.2) as (control, replica):
        operation = await control.controller.request_change(HALF)
        await until(lambda: phase_of(control, operation.id) is Phase.TRYING)
        replica.saw(id_of(HALF), 50, 25)
        await until(lambda: phase_of(control, operation.id) is Phase.ROLLED_BACK)
        ended = control.controller.operation(operation.id)
        assert (ended.error_type, control.controller.view.served()[0]) == (Cause.AGREEMENT, 1)


async def test_a_canary_without_traffic_is_promoted_when_its_time_is_over(tmp_path: Path) -> None:
    async with running(tmp_path, canary_fraction=0.2, canary_s=5) as (control, _):
        operation = await control.controller.request_change(HALF)
        await until(lambda: phase_of(control, operation.id) is Phase.TRYING)
        await asyncio.sleep(0.05)
        assert phase_of(control, operation.id) is Phase.TRYING
        control.clock.now += 2.5
        await asyncio.sleep(0.02)
        control.clock.now += 2.6
        await until(lambda: phase_of(control, operation.id) is Phase.COMMITTED)


async def test_an_operator_may_skip_the_canary_or_ask_for_one(tmp_path: Path) -> None:
    async with running(tmp_path, canary_fraction=0.2) as (control, _):
        operation = await control.controller.request_change(HALF, None, 0.0)
        await until(lambda: phase_of(control, operation.id) is Phase.COMMITTED)
        operation = await control.controller.request_change(DENSE, None, 0.5)
        assert operation.canary is not None and operation.canary.fraction == 0.5


async def test_an_operator_may_end_a_trial_by_asking_for_the_same_without_one(tmp_path: Path) -> None:
    async with running(tmp_path, canary_fraction=0.2) as (control, _):
        operation = await control.controller.request_change(HALF)
        await until(lambda: phase_of(control, operation.id) is Phase.TRYING)
        assert (await control.controller.request_change(HALF)).passed is False
        joined = await control.controller.request_change(HALF, None, 0.0)
        assert joined.id == operation.id
        await until(lambda: phase_of(control, operation.id) is Phase.COMMITTED)
        shown = operation_document(control.controller.operation(operation.id))
        assert shown["trial"].startswith("ended by request after")


def test_answers_that_never_came_are_shown() -> None:
    shown = online_document(Tally(variant_id="v", begun=3, timed_out=3))
    assert shown is not None and (shown["requests"], shown["timed_out"]) == (0, 3)


async def test_a_committed_variant_that_disagrees_is_turned_back_by_itself_and_said_why(tmp_path: Path) -> None:
    async with running(tmp_path) as (control, replica):
        operation = await control.controller.request_change(HALF)
        await until(lambda: phase_of(control, operation.id) is Phase.COMMITTED)
        replica.saw(id_of(HALF), 40, 20)
        await until(lambda: control.controller.view.served()[1].variant_id == id_of(DENSE))
        state = control.file.read()
        assert state is not None
        last = state.history[-1]
        assert (last.asked_by, last.generation) == (Asker.GUARD, 3)
        assert "0.500 of 40 texts" in (last.reason or "")
        assert state.distrusted == (id_of(HALF),)


async def test_what_was_counted_before_a_commit_does_not_count_against_it(tmp_path: Path) -> None:
    async with running(tmp_path) as (control, replica):
        replica.saw(id_of(HALF), 40, 20)
        await until(lambda: control.controller.view.evidence.total(id_of(HALF)).texts == 40)
        operation = await control.controller.request_change(HALF)
        await until(lambda: phase_of(control, operation.id) is Phase.COMMITTED)
        await asyncio.sleep(0.1)
        assert control.controller.view.served()[1].variant_id == id_of(HALF)
        replica.saw(id_of(HALF), 80, 40)
        await until(lambda: control.controller.view.served()[1].variant_id == id_of(DENSE))


async def test_a_full_disk_puts_off_what_the_guard_does_and_nothing_else(tmp_path: Path) -> None:
    async with running(tmp_path) as (control, replica):
        operation = await control.controller.request_change(HALF)
        await until(lambda: phase_of(control, operation.id) is Phase.COMMITTED)
        with full_disk():
            replica.saw(id_of(HALF), 40, 20)
            await until(lambda: control.controller.view.evidence.total(id_of(HALF)).texts == 40)
            await control.controller.tick()
            assert (await replica.ask()).variant_id == id_of(HALF)
        await until(lambda: control.controller.view.served()[1].variant_id == id_of(DENSE))


@pytest.mark.parametrize("by_cascade", [True, False])
def test_what_a_cascade_owes_counts_beside_a_trial_as_what_the_committed_variant_owes(
    by_cascade: bool, tmp_path: Path
) -> None:
    """Everybody waits too long: whatever answers, it is not the fault of the variant on trial."""
    one = ladder_cascade(HALF)
    usual = CascadeChoice(sparsity=one.sparsity, agreement=0.99) if by_cascade else None
    desk = PolicyDesk(tmp_path / "policy.json", Policy(accuracy_floor=FLOOR, cascade=usual), 0.9, (one,))
    watch = Watch(
        manifest=lambda variant_id: manifest_of(HALF if variant_id == id_of(HALF) else DENSE),
        desk=desk,
        ladder=(id_of(DENSE), id_of(HALF)),
        metrics=ControlMetrics(),
        prepare_timeout_s=30.0,
    )
    state = in_phase(Phase.TRYING)
    assert watch.finding(state, 15.0) is None
    beside = one.cascade.cascade_id if by_cascade else id_of(DENSE)
    late = [Tally(variant_id=name, begun=100, answered=50, timed_out=50) for name in (beside, id_of(HALF))]
    watch.evidence.hear(replace(report_of(), tallies=tuple(late)))
    assert watch.finding(state, 16.0) is None


def guarded(folder: Path) -> Watch:
    """Return one that turns a level back which agrees on fewer than nine of ten texts."""
    return Watch(
        manifest=lambda variant_id: manifest_of(HALF if variant_id == id_of(HALF) else DENSE),
        desk=PolicyDesk(folder / "policy.json", Policy(accuracy_floor=FLOOR, agreement_floor=0.9), 0.9),
        ladder=(id_of(DENSE), id_of(HALF)),
        metrics=ControlMetrics(),
        prepare_timeout_s=30.0,
    )


@pytest.mark.parametrize(("asker", "is_found"), [(Asker.GOVERNOR, True), (Asker.OPERATOR, False)])
def test_a_level_that_the_governor_goes_back_to_is_judged_by_all_that_was_seen_of_it(
    asker: Asker, is_found: bool, tmp_path: Path
) -> None:
    """Each stay is too short to say anything; an operator who commits a variant again has it judged anew."""
    watch = guarded(tmp_path)
    texts, found, state = 0, [], first_state()
    for _ in range(3):
        for spec in (HALF, DENSE):
            state = committed(state, spec, asker)
            found.append(watch.finding(state, 0.0))
            texts += 8 if spec == HALF else 0
            watch.evidence.hear(saw(id_of(HALF), texts, texts // 2))
            found.append(watch.finding(state, 0.0))
    assert any(found) is is_found


def committed(state: RolloutState, spec: PruneSpec, asker: Asker) -> RolloutState:
    """The state after someone's operation."""
    state, _ = advance(
        state,
        LevelChosen(
            operation_id=f"op{state.generation}",
            choice=choice_of(spec),
            asked_by=asker,
            reason="",
            accuracy_floor=FLOOR,
            now=0.0,
            deadline=30.0,
        ),
    )
    return advance(state, reported(of=f"op{state.generation}"))[0]


async def test_what_traffic_says_of_a_level_is_shown_beside_what_rows_say(tmp_path: Path) -> None:
    async with running(tmp_path) as (control, replica):
        replica.saw(id_of(DENSE), 40, 39)
        await until(lambda: control.value("online_texts", sparsity="0") == 40)
        assert control.value("online_agreement_ratio", sparsity="0") == 39 / 40
        assert control.value("online_accuracy_ratio", sparsity="0") is None
        online = control.controller.view.online(id_of(DENSE))
        assert online is not None
        assert (online["texts_compared"], online["agreement"], online["accuracy"]) == (40, 39 / 40, None)
        assert online["by_label"]["a"]["flip_rate"] == 1 - 39 / 40
        assert control.controller.view.status()["online"] == online
        assert control.controller.view.online(id_of(HALF)) is None


def test_a_guard_that_could_not_go_back_tries_again_after_a_while(tmp_path: Path) -> None:
    """Its attempts, one with every report, would push all other operations out of what is remembered."""
    watch = guarded(tmp_path)
    state = committed(first_state(), HALF, Asker.OPERATOR)
    assert watch.finding(state, 20.0) is None
    watch.evidence.hear(saw(id_of(HALF), 200, 100))
    found = watch.finding(state, 20.0)
    assert isinstance(found, GuardTripped)
    state, _ = advance(state, found)
    assert state.operation is not None
    unable = reported(failed={"b": "out of memory"}, of=state.operation.id, now=21.0)
    state, _ = advance(state, unable)
    assert state.history[-1].phase is Phase.ROLLED_BACK
    assert watch.finding(state, 21.0 + RETRY_S - 0.1) is None
    assert isinstance(watch.finding(state, 21.0 + RETRY_S), GuardTripped)
