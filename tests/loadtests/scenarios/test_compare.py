from loadtests.options import LoadOptions
from loadtests.scenarios import compare
from tests.loadtests.fake_service import FakeService


async def test_the_faster_of_two_services_has_the_higher_paired_throughput(
    service: FakeService, options: LoadOptions
) -> None:
    slow = FakeService()
    slow.stall_s = lambda number: 0.02
    slow.start()
    try:
        other = type(options.target)(url=slow.url)
        result = await compare.run(options, other, seconds=0.3, rounds=2, clients=4)
    finally:
        slow.stop()
    assert result.held
    assert result.details["throughput_ratio"] > 1
    assert [len(side) for side in result.details["throughput"]] == [2, 2]
    assert [phase.name for phase in result.phases] == [service.url] * 2 + [slow.url] * 2
    assert len(result.tables[0].rows) == 2
