import json
from pathlib import Path

import pytest

from service.policy import Policy
from service.running import leave_note
from tests.service.cli_parts import refused, run
from tests.service.control_parts import first_state
from tests.service.fake_admin import (
    BUILDING_STATE,
    COMMITTED,
    FAILED,
    TAKEN_BACK,
    FakeAdmin,
    building,
    problem,
    status_of,
)

pytestmark = pytest.mark.usefixtures("own_environment")


def test_dial_sends_the_wish_and_the_token_and_shows_the_commit(admin: FakeAdmin) -> None:
    admin.answers(200, COMMITTED)
    result = run("dial", "0.5", "--url", admin.url, "--token", "s3cret-tökèn", "--scorer", "taylor", "--wait", "7")
    assert result.exit_code == 0, result.output
    assert result.stdout == "committed: generation 2, variant 0000000000001388, accuracy 88.0%\n"
    (asked,) = admin.asked
    assert (asked.method, asked.path) == ("PUT", "/admin/sparsity?wait=7.0")
    assert asked.body == {"sparsity": 0.5, "scorer": "taylor"}
    assert (asked.authorization or "").encode("latin-1") == "Bearer s3cret-tökèn".encode()


def test_dial_and_status_as_json_print_the_service_s_document(admin: FakeAdmin) -> None:
    admin.answers(200, COMMITTED)
    assert json.loads(run("dial", "0.5", "--url", admin.url, "--token", "t", "--json").stdout) == COMMITTED
    admin.answers(200, status_of(first_state()))
    assert json.loads(run("status", "--url", admin.url, "--token", "t", "--json").stdout) == status_of(first_state())


def test_status_says_what_is_served_and_what_is_changing(admin: FakeAdmin) -> None:
    admin.answers(200, status_of(BUILDING_STATE))
    result = run("status", SPARSEDIAL_URL=admin.url, SPARSEDIAL_ADMIN_TOKEN="t")
    assert result.exit_code == 0
    for words in ("sparsity 0 ", "generation 1", "accuracy 90.0%", "floor 85.0%", "1 replica\n", "op1 is building"):
        assert words in result.stdout
    assert admin.asked[0].authorization == "Bearer t"


@pytest.mark.parametrize(
    ("off", "words"),
    [
        (None, "the cascade from 0.6 (agreement 0.99) answers requests that name no level"),
        ("it agrees in 0.5 of 40 texts", "(agreement 0.99) is switched off: it agrees in 0.5 of 40 texts"),
    ],
)
def test_status_says_how_the_policy_s_cascade_fares(admin: FakeAdmin, off: str | None, words: str) -> None:
    cascade = {"sparsity": 0.6, "agreement_target": 0.99, "active": off is None, "off": off, "of": []}
    admin.answers(200, status_of(first_state()) | {"cascade": cascade})
    assert words in run("status", "--url", admin.url, "--token", "t").stdout


def test_status_says_what_the_governor_is_about(admin: FakeAdmin) -> None:
    governor = {"why": "queue", "reason": "what waits takes 300 ms to answer"}
    admin.answers(200, status_of(first_state()) | {"governor": governor})
    result = run("status", "--url", admin.url, "--token", "t")
    assert "the governor turns the dial (queue): what waits takes 300 ms to answer" in result.stdout


def test_policy_shows_what_holds(admin: FakeAdmin) -> None:
    held = Policy(accuracy_floor=0.8).as_dict()
    admin.answers(200, held)
    result = run("policy", "--url", admin.url, "--token", "t")
    assert (admin.asked[0].method, admin.asked[0].path, admin.asked[0].body) == ("GET", "/admin/policy", None)
    for words in ("mode=manual", "accuracy_floor=0.8", "slo_p99_ms=null"):
        assert f"{words}\n" in result.stdout
    assert json.loads(run("policy", "--url", admin.url, "--token", "t", "--json").stdout) == held


def test_policy_sets_members_as_they_are_written(admin: FakeAdmin) -> None:
    admin.answers(200, Policy(accuracy_floor=0.8).as_dict())
    words = ("mode=auto", "slo_p99_ms=50", "max_sparsity=0.7", "agreement_floor=null")
    assert run("policy", *words, "--url", admin.url, "--token", "t").exit_code == 0
    assert admin.asked[0].method == "PUT"
    assert admin.asked[0].body == {"mode": "auto", "slo_p99_ms": 50, "max_sparsity": 0.7, "agreement_floor": None}


@pytest.mark.parametrize("words", ["auto", "=auto", "mode"])
def test_policy_words_that_set_nothing_are_2_and_say_how(admin: FakeAdmin, words: str) -> None:
    assert refused(run("policy", words, "--url", admin.url, "--token", "t"), 2, words, "MEMBER=VALUE")
    assert not admin.asked


def test_rollback_asks_for_the_previous_variant(admin: FakeAdmin) -> None:
    admin.answers(200, COMMITTED)
    assert run("rollback", "--url", admin.url, "--token", "t").exit_code == 0
    assert (admin.asked[0].method, admin.asked[0].path) == ("POST", "/admin/rollback?wait=60.0")


def test_rollback_says_that_a_running_change_was_taken_back(admin: FakeAdmin) -> None:
    admin.answers(200, TAKEN_BACK)
    result = run("rollback", "--url", admin.url, "--token", "t")
    assert (result.exit_code, result.stdout) == (
        0,
        "taken back: operation op1 (sparsity 0.5); what was served goes on\n",
    )


def test_a_change_that_failed_is_1_and_its_operation_is_on_stdout_as_json(admin: FakeAdmin) -> None:
    failed = problem(422, "no rows", **FAILED)
    admin.answers(422, failed)
    assert refused(run("dial", "0.5", "--url", admin.url, "--token", "t"), 1, "no rows")
    result = run("dial", "0.5", "--url", admin.url, "--token", "t", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["phase"] == "failed"


def test_a_change_that_is_not_over_in_time_is_1_and_0_if_nobody_waits(admin: FakeAdmin) -> None:
    admin.answers(202, building())
    assert refused(
        run("dial", "0.5", "--url", admin.url, "--token", "t", "--wait", "0.5"), 1, "op1", "building", "0.5 s"
    )
    result = run("dial", "0.5", "--url", admin.url, "--token", "t", "--wait", "0")
    assert (result.exit_code, "building: operation op1" in result.stdout) == (0, True)


@pytest.mark.parametrize(("status", "exit_code"), [(409, 1), (503, 1), (422, 2)])
def test_a_refusal_is_told_in_the_service_s_words(admin: FakeAdmin, status: int, exit_code: int) -> None:
    admin.answers(status, problem(status, "Another change runs."))
    assert refused(run("rollback", "--url", admin.url, "--token", "t"), exit_code, "Another change runs.")


def test_a_wrong_token_is_2_and_says_where_the_right_one_is(admin: FakeAdmin) -> None:
    admin.answers(401, problem(401, "Send the admin token."))
    result = run("status", "--url", admin.url, "--token", "wr0ng")
    assert refused(result, 2, "--token", "SPARSEDIAL_ADMIN_TOKEN", "admin.token")
    assert "wr0ng" not in result.output


def test_no_service_is_3_and_says_how_to_start_one() -> None:
    for command in (["status"], ["dial", "0.5"], ["rollback"], ["policy"]):
        assert refused(run(*command, "--url", "http://127.0.0.1:1"), 3, "http://127.0.0.1:1", "sparsedial serve")


def test_the_token_of_a_service_on_this_machine_is_found(admin: FakeAdmin, tmp_path: Path) -> None:
    admin.answers(200, status_of(first_state()))
    token_file = tmp_path / "admin.token"
    token_file.write_text("found\n")
    leave_note(1234, admin.url, token_file)
    assert run("status", "--url", admin.url.replace("127.0.0.1", "localhost") + "/").exit_code == 0
    assert admin.asked[0].authorization == "Bearer found"


def test_a_token_that_was_found_goes_to_the_address_that_the_service_noted(admin: FakeAdmin, tmp_path: Path) -> None:
    """Whoever listens on the same port of another loopback address gets nothing; here nobody does."""
    admin.answers(200, status_of(first_state()))
    (tmp_path / "admin.token").write_text("found\n")
    leave_note(1234, admin.url, tmp_path / "admin.token")
    assert run("status", "--url", admin.url.replace("127.0.0.1", "[::1]")).exit_code == 0
    assert admin.asked[0].authorization == "Bearer found"
