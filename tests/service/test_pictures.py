from pathlib import Path

import pytest

from pruning.errors import SpecError
from service.pictures import drawing, require_png


@pytest.mark.parametrize("name", ["picture.pdf", "picture"])
def test_a_file_of_another_kind_is_refused_with_a_name_that_would_do(name: str) -> None:
    with pytest.raises(SpecError, match=rf"--plot writes a PNG; name it so: .*picture\.png, not .*{name}"):
        require_png(Path("folder") / name)


def test_a_png_and_no_picture_are_fine() -> None:
    require_png(Path("picture.png"))
    require_png(None)


def test_a_picture_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    plot = tmp_path / "nowhere" / "picture.png"
    with pytest.raises(SpecError, match=f"--plot {plot} cannot be written: No such file or directory"), drawing(plot):
        plot.write_bytes(b"")
