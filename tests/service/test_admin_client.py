import pytest

from service.admin_client import AdminClient, AdminError, ConnectionCut
from tests.service.control_parts import first_state
from tests.service.fake_admin import COMMITTED, FAILED, FakeAdmin, building, problem, status_of


@pytest.fixture
def client(admin: FakeAdmin) -> AdminClient:
    return AdminClient(admin.url + "/", "token")


def error_of(client: AdminClient) -> AdminError:
    with pytest.raises(AdminError) as caught:
        client.dial({"sparsity": 0.5}, 1.0)
    return caught.value


def test_the_answer_is_the_document(admin: FakeAdmin, client: AdminClient) -> None:
    admin.answers(200, status_of(first_state()))
    assert client.status() == admin.body
    admin.answers(200, COMMITTED)
    assert client.dial({"sparsity": 0.5}, 3.0) == client.rollback(3.0) == COMMITTED
    assert [asked.path for asked in admin.asked] == [
        "/admin/sparsity",
        "/admin/sparsity?wait=3.0",
        "/admin/rollback?wait=3.0",
    ]


def test_without_a_token_none_is_sent(admin: FakeAdmin) -> None:
    admin.answers(401, problem(401, "Send the admin token."))
    assert error_of(AdminClient(admin.url, None)).exit_code == 2
    assert admin.asked[0].authorization is None


def test_a_running_operation_is_an_error_only_to_who_waits(admin: FakeAdmin, client: AdminClient) -> None:
    admin.answers(202, building())
    error = error_of(client)
    assert (error.exit_code, error.document) == (1, building())
    assert client.dial({"sparsity": 0.5}, 0.0) == building()


def test_a_bad_wish_and_a_change_that_failed_are_told_apart(admin: FakeAdmin, client: AdminClient) -> None:
    admin.answers(422, problem(422, "unknown scorer 'x'"))
    assert error_of(client).exit_code == 2
    admin.answers(422, problem(422, "no rows", **FAILED))
    error = error_of(client)
    assert (error.exit_code, str(error)) == (1, "no rows")


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (502, b"Bad Gateway"), (200, ["a", "list"]), (200, {"other": "service"}), (200, b"\xff")],
)
def test_something_else_on_the_port_is_no_service(
    admin: FakeAdmin, client: AdminClient, status: int, body: object
) -> None:
    admin.answers(status, body)
    for call in (client.status, lambda: client.rollback(1.0)):
        with pytest.raises(AdminError, match=f"{status}.*check --url") as caught:
            call()
        assert caught.value.exit_code == 3


def test_a_change_whose_connection_was_cut_is_asked_for_again(admin: FakeAdmin, client: AdminClient) -> None:
    admin.answers(200, COMMITTED)
    admin.cuts = 1
    assert client.dial({"sparsity": 0.5}, 30.0) == COMMITTED
    assert [asked.body for asked in admin.asked] == [{"sparsity": 0.5}] * 2


def test_a_rollback_whose_connection_was_cut_is_not_asked_for_again(admin: FakeAdmin, client: AdminClient) -> None:
    admin.answers(200, COMMITTED)  # a second rollback would undo the first
    admin.cuts = 1
    with pytest.raises(ConnectionCut, match="sparsedial status"):
        client.rollback(30.0)
    assert len(admin.asked) == 1


def test_who_does_not_wait_is_told_of_a_cut_connection(admin: FakeAdmin, client: AdminClient) -> None:
    admin.cuts = 1
    with pytest.raises(ConnectionCut, match="may go on"):
        client.dial({"sparsity": 0.5}, 0.0)
    assert len(admin.asked) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "ftp://127.0.0.1", "http://\x00", "nonsense", ""])
def test_an_address_where_nobody_answers_is_named(url: str) -> None:
    error = error_of(AdminClient(url, "t"))
    assert error.exit_code == 3
    assert url in str(error) and "sparsedial serve" in str(error)


def test_a_proxy_of_the_environment_is_not_told_the_token(
    admin: FakeAdmin, client: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    admin.answers(200, status_of(first_state()))
    assert client.status()["generation"] == 1
