import subprocess
import sys
from pathlib import Path

import pytest

from service.bench.errors import BenchError
from service.bench.own_service import copy_store, environment_of, wait_until_ready


def test_a_copy_has_the_variants_but_not_the_state_the_token_or_what_is_half_written(tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "variants" / "abc").mkdir(parents=True)
    (store / "variants" / ".aside").mkdir()
    for name in ("variants/abc/manifest.json", "state.json", "admin.token", "service.lock"):
        (store / name).write_text(name)
    copy_store(store, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").rglob("*")] == ["variants", "abc", "manifest.json"]
    assert (tmp_path / "copy" / "variants" / "abc" / "manifest.json").read_text() == "variants/abc/manifest.json"


def test_a_store_that_cannot_be_copied_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"could not be copied.*--no-http"):
        copy_store(tmp_path / "absent", tmp_path / "copy")


def test_the_service_is_given_no_secret_no_address_and_no_floor() -> None:
    given = {
        "PATH": "/bin",
        "SPARSEDIAL_API_KEY": "secret",
        "SPARSEDIAL_PORT": "9000",
        "SPARSEDIAL_ACCURACY_FLOOR": "0.99",
        "SPARSEDIAL_THREADS": "1",
    }
    assert environment_of(given, "/cache") == {
        "PATH": "/bin",
        "SPARSEDIAL_THREADS": "1",
        "SPARSEDIAL_ACCURACY_FLOOR": "0",
        "XDG_CACHE_HOME": "/cache",
    }


def test_a_service_that_ends_before_it_serves_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    log.write_text("no such model")
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(2)"]) as process:
        process.wait()
        with pytest.raises(BenchError, match="ended with 2 before it served:\nno such model"):
            wait_until_ready(process, "http://127.0.0.1:9", log)
