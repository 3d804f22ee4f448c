"""``sparsedial bench`` with a service of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

pytestmark = pytest.mark.ray


def test_every_level_is_read_alone_and_over_http_and_nothing_of_it_stays(
    trained_model: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    model, train, evaluation = trained_model
    command = [
        *(str(Path(sys.executable).parent / "sparsedial"), "bench", str(model), "--train", str(train)),
        *("--eval", str(evaluation), "--store", str(tmp_path / "store"), "--levels", "0,0.5"),
        *("--seconds", "0.3", "--plot", str(tmp_path / "bench.png"), "--json"),
    ]
    with TemporaryDirectory(prefix="b-") as temporary:  # short: Ray's sockets lie in it
        environment = {**os.environ, "TMPDIR": temporary, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert not list(Path(temporary).glob("sparsedial-bench-*"))
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert [level["requested_sparsity"] for level in document["levels"]] == [0.0, 0.5]
    for level in document["levels"]:
        assert level["engine"]["of_ceiling"] > 0
        assert level["http"].keys() == {"batched", "single_32", "single_1"}
        for way in (level["engine"], *level["http"].values()):
            assert way["texts_per_s"] > 0
            assert way["shares"]["inference"] > 0
    assert (tmp_path / "bench.png").is_file()
    assert not (tmp_path / "store" / "state.json").exists()  # the store's own dial was not turned
