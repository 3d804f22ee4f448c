import json
import re
import shlex
from pathlib import PurePosixPath

import pytest

from tests.deploy.dashboards import ROOT

Instruction = tuple[str, str]


@pytest.fixture(scope="module")
def instructions() -> list[Instruction]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined)]


def values(instructions: list[Instruction], word: str) -> list[str]:
    return [rest for name, rest in instructions if name == word]


def copied(instructions: list[Instruction]) -> list[str]:
    return [source for rest in values(instructions, "COPY") for source in shlex.split(rest)[:-1]]


def test_the_image_is_the_small_python_that_the_project_supports(instructions: list[Instruction]) -> None:
    assert values(instructions, "FROM") == ["python:3.11-slim"]


def test_the_process_is_not_root(instructions: list[Instruction]) -> None:
    (user,) = values(instructions, "USER")
    assert int(user) > 0
    words = [word for word, _ in instructions]
    assert words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")


def test_the_entry_is_in_exec_form_so_that_sigterm_reaches_the_service(instructions: list[Instruction]) -> None:
    (entry,) = values(instructions, "ENTRYPOINT")
    (command,) = values(instructions, "CMD")
    assert json.loads(entry) + json.loads(command) == ["sparsedial", "serve"]


def test_the_health_check_needs_nothing_but_python(instructions: list[Instruction]) -> None:
    (check,) = values(instructions, "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "urllib" in command[2] and "/health" in command[2]


def test_dependencies_are_pinned_and_torch_may_come_from_another_index(
    instructions: list[Instruction],
) -> None:
    (install,) = (run for run in values(instructions, "RUN") if "pip install" in run)
    assert "--constraint constraints.txt" in install
    assert "$TORCH_INDEX" in install
    assert values(instructions, "ARG") == ["TORCH_INDEX="]


def test_the_store_is_a_volume_and_the_port_is_reachable(instructions: list[Instruction]) -> None:
    environment = shlex.split(" ".join(values(instructions, "ENV")))
    assert {"SPARSEDIAL_HOST=0.0.0.0", "SPARSEDIAL_STORE=/data"} <= set(environment)
    assert values(instructions, "VOLUME") == ["/data"]
    assert values(instructions, "EXPOSE") == ["8000"]


def test_every_copied_source_exists_and_is_in_the_build_context(instructions: list[Instruction]) -> None:
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    sources = copied(instructions)
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), f"COPY {source}: no such file"
        assert PurePosixPath(source).parts[0] in kept
    assert kept == set(sources)
