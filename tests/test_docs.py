"""``docs/reference.md`` is held to the code: what is there is described, and its tables say what the code says."""

import ast
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from pruning.encoder import load_base_model
from pruning.recovery.criteria import STRUCTURE_CRITERIA, WEIGHT_CRITERIA
from pruning.recovery.recipe import Criterion
from pruning.scores import SCORERS, Scorer
from pruning.spec import PruneSpec
from service import settings as settings_module
from service.admin import OPEN_PATHS, build_admin_api
from service.cascade_metrics import CascadeMetrics
from service.cascade_watch import CascadeWatch
from service.cli import app
from service.control_metrics import ControlMetrics
from service.errors import ServiceError
from service.event_log import EventLog
from service.evidence import Evidence
from service.governor.capacity import Capacity
from service.governor.moves import Reason, Stay, Why
from service.governor_document import governor_document
from service.info import info
from service.ingress import build_inference_api
from service.metrics import ReplicaMetrics
from service.operations import Asker, Cause, Phase
from service.policy import CascadeChoice, Policy
from service.policy_desk import POLICY, PolicyDesk
from service.settings import Settings
from tests.service.control_parts import ladder_cascade, make_control
from tests.service.fake_admin import COMMITTED, status_of
from tests.service.governor.sightings import seen
from tests.service.governor.simulation import LEVELS
from tests.service.inference_parts import CARD, PROMISED, desk_of, engine_of, runtime_of
from tests.service.rollout_parts import in_phase

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
SERVE = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
FLAGS = {parameter.name: parameter.opts[0] for parameter in SERVE.params}


def meanings() -> dict[str, str]:
    """Every setting's docstring, as Markdown."""
    tree = ast.parse(Path(settings_module.__file__).read_text(encoding="utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    return {
        field.target.id: str(below.value.value).replace("``", "`")
        for field, below in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


def setting_row(field: str) -> str:
    """The line of the settings table that the code asks for."""
    default = Settings.model_fields[field].default
    if isinstance(default, tuple):
        default = ",".join(value if isinstance(value, str) else f"{value:g}" for value in default)
    flag = FLAGS.get(field)
    shown_flag = "" if flag is None else "`MODEL`" if flag == "model" else f"`{flag}`"
    shown_default = "" if default is None else f"`{default:g}`" if isinstance(default, float) else f"`{default}`"
    return f"| `SPARSEDIAL_{field.upper()}` | {shown_flag} | {shown_default} | {meanings()[field]} |"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_described_with_its_flag_and_default(field: str) -> None:
    assert setting_row(field) in REFERENCE.splitlines()


def test_no_setting_is_described_that_is_none() -> None:
    described = set(re.findall(r"\| `(SPARSEDIAL_\w+)` \|", REFERENCE))
    assert described == {f"SPARSEDIAL_{field.upper()}" for field in Settings.model_fields}


@pytest.fixture(scope="module")
def inference_api(tiny_model_dir: Path) -> FastAPI:
    base = load_base_model(tiny_model_dir)
    runtime = runtime_of(engine_of(base), tiny_model_dir)
    return build_inference_api(runtime, desk_of(runtime), Settings(), CARD)


@pytest.fixture(scope="module")
def admin_api(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    control = make_control(tmp_path_factory.mktemp("control"))
    return build_admin_api(lambda: control.controller, "token", frontier=list, cascades=list, scorers=("fisher",))


def routes_of(api: FastAPI, prefix: str = "") -> Iterator[str]:
    for path, methods in api.openapi()["paths"].items():
        yield from (f"{method.upper()} {prefix}{path}" for method in methods)


def test_every_route_is_described_and_no_other(inference_api: FastAPI, admin_api: FastAPI) -> None:
    routes = {*routes_of(inference_api), *routes_of(admin_api, "/admin")}
    assert len(routes) == 18
    described = set(re.findall(r"^\| `((?:GET|PUT|POST|DELETE|PATCH) /\S*)` \|", REFERENCE, re.MULTILINE))
    assert described - {"GET /docs", "GET /admin/docs"} == routes
    assert inference_api.docs_url == "/docs" and admin_api.docs_url == "/docs"


def test_what_needs_no_token_is_said() -> None:
    for path in OPEN_PATHS:
        (row,) = [line for line in REFERENCE.splitlines() if line.startswith(f"| `GET /admin{path}`")]
        assert "no token" in row


@pytest.mark.parametrize("header", [*PROMISED, "x-escalated", "x-not-escalated", "retry-after", "location", "etag"])
def test_every_header_is_described(header: str) -> None:
    assert f"`{header}`" in REFERENCE


@pytest.mark.parametrize("kind", ServiceError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_error_is_described_with_its_status(kind: type[ServiceError]) -> None:
    row = f"| {kind.status} | `{kind.error_type}` |"
    assert row in REFERENCE


@pytest.mark.parametrize("value", [*Phase, *Cause, *Asker, *Why])
def test_every_word_of_an_operation_and_of_the_governor_is_described(value: str) -> None:
    assert f"`{value}`" in REFERENCE


def names_of(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        yield family.name + ("_total" if family.type == "counter" else "")


def test_every_metric_is_described_and_no_other() -> None:
    exposed = {*names_of(ReplicaMetrics("0").registry), *names_of(ControlMetrics().registry)}
    assert set(re.findall(r"^\| `((?:sparsedial|process)_\w+)`", REFERENCE, re.MULTILINE)) == exposed


@pytest.mark.parametrize("scorer", SCORERS.values(), ids=lambda scorer: scorer.name)
def test_every_scorer_is_described_with_its_scope(scorer: Scorer) -> None:
    (row,) = [line for line in REFERENCE.splitlines() if line.startswith(f"| `{scorer.name}` |")]
    assert row.endswith(f"| `{scorer.scope}` |")


@pytest.mark.parametrize("criterion", STRUCTURE_CRITERIA)
def test_every_criterion_of_gradual_cuts_is_described_with_what_it_ranks(criterion: Criterion) -> None:
    (row,) = [line for line in REFERENCE.splitlines() if line.startswith(f"| `--criterion {criterion}` |")]
    assert row.endswith("| -- |") is not (criterion in WEIGHT_CRITERIA)


@pytest.mark.parametrize("command", typer.main.get_command(app).commands)  # type: ignore[attr-defined]
def test_every_command_is_described(command: str) -> None:
    assert f"| `sparsedial {command}" in REFERENCE


def test_every_exit_code_is_described() -> None:
    assert re.findall(r"^\| (\d) \|", REFERENCE, re.MULTILINE) == ["0", "1", "2", "3"]


def examples() -> dict[str, Any]:
    """The JSON examples, by the name in the comment before each."""
    found = re.findall(r"<!-- (\w+) -->\n+```json\n(.*?)```", REFERENCE, re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def test_the_examples_have_the_members_of_the_real_answers(tiny_model_dir: Path) -> None:
    shown = examples()
    state = status_of(in_phase(Phase.PREPARING))
    runtime = runtime_of(engine_of(load_base_model(tiny_model_dir)), tiny_model_dir)
    assert shown["operation"].keys() == COMMITTED.keys()
    assert shown["status"].keys() == state.keys()
    assert shown["status"]["replicas"][0].keys() == state["replicas"][0].keys()
    assert shown["info"].keys() == info(CARD, runtime.dial.live, [], Settings()).keys()
    assert shown["info"]["sparsedial"].keys() == info(CARD, runtime.dial.live, [], Settings())["sparsedial"].keys()
    steady = Stay(Reason(Why.STEADY, "calm"))
    governor = governor_document(seen(), steady, Capacity(), LEVELS)
    assert shown["governor"].keys() == governor.keys()
    assert shown["governor"]["levels"][0].keys() == governor["levels"][0].keys()
    cascade = cascade_document()
    assert shown["cascade"].keys() == cascade.keys()
    assert shown["cascade"]["of"][0].keys() == cascade["of"][0].keys()
    assert shown["policy"].keys() == Policy(accuracy_floor=0.8).as_dict().keys()
    assert shown["problem"].keys() == {*ServiceError("x").problem("id"), "retry_after_s"}


def cascade_document() -> dict[str, Any]:
    """What the controller shows of a policy's cascade."""
    policy = Policy(accuracy_floor=0.8, cascade=CascadeChoice(sparsity=0.5, agreement=0.99))
    desk = PolicyDesk(Path("nowhere") / POLICY, policy, 0.9, (ladder_cascade(PruneSpec(sparsity=0.5)),))
    document = CascadeWatch(desk, Evidence(), CascadeMetrics(CollectorRegistry()), EventLog()).document()
    assert document is not None
    return document


def test_every_file_that_the_documents_name_exists() -> None:
    for document in (ROOT / "docs").glob("*.md"):
        text = document.read_text(encoding="utf-8")
        named = {*re.findall(r"`((?:service|pruning|loadtests|deploy|scripts)/[\w/.-]+)`", text)}
        named |= {*re.findall(r"\]\(((?!http)[^)#]+)", text)}
        missing = [name for name in named if not ((ROOT / name).exists() or (document.parent / name).exists())]
        assert missing == [], document.name
