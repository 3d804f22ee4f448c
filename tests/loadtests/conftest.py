from collections.abc import Iterator

import pytest

from loadtests.options import LoadOptions
from loadtests.target import Target
from tests.loadtests.fake_service import FakeService


@pytest.fixture
def service() -> Iterator[FakeService]:
    fake = FakeService()
    fake.start()
    yield fake
    fake.stop()


@pytest.fixture
def options(service: FakeService) -> LoadOptions:
    return LoadOptions(target=Target(url=service.url), bodies=[b'{"inputs": "fine"}'], rate=200.0, probe_s=0.1)
