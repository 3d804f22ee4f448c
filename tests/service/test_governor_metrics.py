from prometheus_client import CollectorRegistry

from service.governor.moves import Move, Reason, Stay, Why
from service.governor_metrics import GovernorMetrics
from tests.service.governor.sightings import seen
from tests.service.governor.simulation import LEVELS

STAY = Stay(Reason(Why.WAITING, "a change is under way"))


def test_what_the_governor_asked_for_stays_wanted_until_it_answers_or_is_given_up() -> None:
    registry = CollectorRegistry()
    metrics = GovernorMetrics(registry)
    move = Move(LEVELS[2], sparser=True, reason=Reason(Why.QUEUE, "what waits takes long"))
    told = []
    for decision, level, changing in (
        (STAY, LEVELS[0], False),
        (move, LEVELS[0], False),
        (STAY, LEVELS[0], True),
        (STAY, LEVELS[2], False),
        (move, LEVELS[0], False),
        (STAY, LEVELS[0], False),
    ):
        metrics.decided(seen(level=level, changing=changing), decision, None)
        told.append([registry.get_sample_value(f"sparsedial_governor_{name}") for name in ("level", "wanted_level")])
    dense, sparse = LEVELS[0].sparsity, LEVELS[2].sparsity
    assert told == [
        [dense, dense],
        [dense, sparse],
        [dense, sparse],
        [sparse, sparse],
        [dense, sparse],
        [dense, dense],
    ]
