import pytest

from loadtests.errors import TargetError
from loadtests.target import checked_target


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://localhost:8000/", "http://[::1]:8000"])
def test_loopback_is_allowed(url: str) -> None:
    assert checked_target(url).endpoint == url.rstrip("/") + "/predict"


def test_another_machine_needs_a_flag() -> None:
    with pytest.raises(TargetError, match="--allow-remote"):
        checked_target("http://192.0.2.7:8000")
    assert checked_target("http://192.0.2.7:8000", allow_remote=True).url == "http://192.0.2.7:8000"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1/", "http://"])
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(TargetError, match="no HTTP URL"):
        checked_target(url)


def test_the_inference_key_goes_with_every_request() -> None:
    assert checked_target("http://127.0.0.1:1", api_key="k").headers["authorization"] == "Bearer k"
