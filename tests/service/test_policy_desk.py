import json
import os
from pathlib import Path

import pytest

from pruning.spec import PruneSpec
from service.errors import Invalid, NotReady
from service.policy import Policy
from service.policy_desk import POLICY, PolicyDesk
from service.state import StateDamaged
from tests.service.control_parts import ladder_cascade

DENSE_ACCURACY = 0.9


def desk_in(folder: Path, floor: float = 0.85) -> PolicyDesk:
    return PolicyDesk(folder / POLICY, Policy(accuracy_floor=floor), DENSE_ACCURACY)


async def test_what_was_set_outlives_the_desk_and_the_rest_follows_the_settings(tmp_path: Path) -> None:
    await desk_in(tmp_path).change({"max_sparsity": 0.6})
    await desk_in(tmp_path).change({"shadow_fraction": 0.5})
    reborn = desk_in(tmp_path, floor=0.7).policy
    assert (reborn.max_sparsity, reborn.shadow_fraction, reborn.accuracy_floor) == (0.6, 0.5, 0.7)


async def test_a_floor_above_the_dense_model_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    desk = desk_in(tmp_path)
    with pytest.raises(Invalid, match=r"0\.9100 is above the accuracy of the dense model, 0\.9000"):
        await desk.change({"accuracy_floor": 0.91, "max_sparsity": 0.5})
    assert desk.policy == desk_in(tmp_path).policy == Policy(accuracy_floor=0.85)
    assert (await desk.change({"accuracy_floor": DENSE_ACCURACY})).accuracy_floor == DENSE_ACCURACY


async def test_a_policy_that_cannot_be_written_does_not_hold(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    desk = PolicyDesk(tmp_path / POLICY, Policy(accuracy_floor=0.85), DENSE_ACCURACY)
    desk._path = tmp_path / "file" / POLICY
    with pytest.raises(NotReady, match="Nothing was changed"):
        await desk.change({"max_sparsity": 0.5})
    assert desk.policy.max_sparsity == 1.0


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("not json", "is not the JSON that was written"),
        ('{"policy": {}}', "is not the JSON that was written"),
        ('{"policy": {"max_sparsity": NaN}, "sha256": "0"}', "is not the JSON that was written"),
        ('{"policy": {"max_sparsity": 0.5}, "sha256": "0"}', "does not match its checksum"),
    ],
)
def test_a_damaged_file_is_refused_with_what_to_do(tmp_path: Path, damage: str, words: str) -> None:
    (tmp_path / POLICY).write_text(damage)
    with pytest.raises(StateDamaged, match=f"{POLICY} {words}.*; delete it"):
        desk_in(tmp_path)


async def test_a_policy_that_contradicts_new_settings_is_refused_by_name(tmp_path: Path) -> None:
    await desk_in(tmp_path).change({"max_sparsity": 0.5})
    with pytest.raises(StateDamaged, match=r"min_sparsity 0\.6 is above"):
        PolicyDesk(tmp_path / POLICY, Policy(accuracy_floor=0.8, min_sparsity=0.6), DENSE_ACCURACY)


async def test_the_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    desk = desk_in(tmp_path)
    await desk.change({"canary_s": 3})
    assert os.listdir(tmp_path) == [POLICY]
    assert json.loads((tmp_path / POLICY).read_text())["policy"] == {"canary_s": 3.0}


CASCADES = (
    ladder_cascade(PruneSpec(sparsity=0.5), accuracy=0.88),
    ladder_cascade(PruneSpec(sparsity=0.5), 0.98, accuracy=0.88),
    ladder_cascade(PruneSpec(sparsity=0.7), accuracy=0.84),
)
HALF, LESS = ({"sparsity": 0.5, "agreement": agreement} for agreement in (0.99, 0.98))


def cascade_desk(folder: Path) -> PolicyDesk:
    return PolicyDesk(folder / POLICY, Policy(accuracy_floor=0.85), DENSE_ACCURACY, CASCADES)


async def test_a_cascade_is_one_that_the_ladder_has_and_whose_level_may_answer_alone(tmp_path: Path) -> None:
    desk = cascade_desk(tmp_path)
    with pytest.raises(Invalid, match=r"no cascade begins at sparsity 0\.6; .* have one: 0\.5, 0\.7"):
        await desk.change({"cascade": {"sparsity": 0.6, "agreement": 0.99}})
    with pytest.raises(Invalid, match=r"level 0\.7 answers alone .* 0\.8400 is below the floor 0\.8500"):
        await desk.change({"cascade": {"sparsity": 0.7, "agreement": 0.99}})
    await desk.change({"cascade": HALF})
    with pytest.raises(Invalid, match=r"level 0\.5 answers alone"):
        await desk.change({"accuracy_floor": 0.89})
    assert cascade_desk(tmp_path).policy == desk.policy
    with pytest.raises(StateDamaged, match=r"no cascade begins at sparsity 0\.5; .*: none"):
        desk_in(tmp_path)


async def test_the_policy_names_the_cascades_of_its_level_and_agreement(tmp_path: Path) -> None:
    desk = cascade_desk(tmp_path)
    assert desk.chosen_cascades == ()
    await desk.change({"cascade": LESS})
    assert desk.chosen_cascades == (CASCADES[1],)


async def off_desk(folder: Path) -> PolicyDesk:
    """A desk whose cascade was switched off."""
    desk = cascade_desk(folder)
    choice = (await desk.change({"cascade": HALF})).cascade
    assert choice is not None and await desk.switch_cascade_off(choice, "it disagrees")
    return desk


async def test_a_cascade_that_was_switched_off_stays_the_policy_s_and_off_over_restarts(tmp_path: Path) -> None:
    desk = await off_desk(tmp_path)
    for known in (desk, cascade_desk(tmp_path)):
        assert (known.cascade_off, known.policy.as_dict()["cascade"]) == ("it disagrees", HALF)
    await desk.change({"shadow_fraction": 0.5})
    assert cascade_desk(tmp_path).cascade_off == "it disagrees"


@pytest.mark.parametrize("cascade", [HALF, LESS, None])
async def test_setting_the_cascade_ends_that_it_was_off(cascade: dict[str, float] | None, tmp_path: Path) -> None:
    desk = await off_desk(tmp_path)
    before = desk.cascade_settings
    await desk.change({"cascade": cascade})
    assert (desk.cascade_off, cascade_desk(tmp_path).cascade_off) == (None, None)
    assert desk.cascade_settings == before + 1


async def test_only_the_cascade_that_was_judged_is_switched_off_and_once(tmp_path: Path) -> None:
    desk = await off_desk(tmp_path)
    judged = desk.policy.cascade
    assert judged is not None and not await desk.switch_cascade_off(judged, "again")
    await desk.change({"cascade": LESS})
    assert not await desk.switch_cascade_off(judged, "the one before")
    assert desk.cascade_off is None


async def test_a_disk_that_is_full_keeps_no_cascade_answering(tmp_path: Path) -> None:
    desk = cascade_desk(tmp_path)
    choice = (await desk.change({"cascade": HALF})).cascade
    (tmp_path / "file").write_text("")
    desk._path = tmp_path / "file" / POLICY
    assert choice is not None and await desk.switch_cascade_off(choice, "it disagrees")
    assert desk.cascade_off == "it disagrees"


async def test_why_a_cascade_is_off_cannot_be_altered(tmp_path: Path) -> None:
    await off_desk(tmp_path)
    path = tmp_path / POLICY
    path.write_text(path.read_text().replace("it disagrees", "it agrees"))
    with pytest.raises(StateDamaged, match="checksum"):
        cascade_desk(tmp_path)
