from loadtests.options import LoadOptions
from loadtests.scenarios import steady
from tests.loadtests.fake_service import FakeService


async def test_the_warm_up_is_judged_but_not_timed(service: FakeService, options: LoadOptions) -> None:
    service.status_of = lambda number: 500 if number == 0 else 200
    result = await steady.run(options, seconds=0.4, warm_up_s=0.2)
    assert result.laws[0].broken == 1
    assert result.phases[0].failed == 0
    assert 0 < result.phases[0].requests < len(result.replies["requests"])
    assert result.phases[0].offered_rate == 200.0
