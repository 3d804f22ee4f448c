import sys

import pytest

from service.ray_output import ending

FAILED = "\x1b[33m(raylet)\x1b[0m Task {} failed. There are infinite retries remaining, so the task will be retried. "
KILLED = "Error: The actor is dead because it was killed by `ray.kill`."


@pytest.mark.parametrize("call", ["ServeController.listen_for_change", "ServeController.graceful_shutdown"])
def test_the_end_of_serve_s_own_controller_is_no_news(call: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ending():
        print(FAILED.format(call) + KILLED, flush=True)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "line",
    [
        FAILED.format("VariantBuilder.build") + KILLED,
        FAILED.format("ServeController.graceful_shutdown") + "Error: The actor died unexpectedly: out of memory.",
        "(raylet) 1 worker was killed due to memory pressure",
        "",
    ],
)
def test_any_other_line_is_passed_on_to_stderr(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with ending():
        print(line)
    assert capsys.readouterr() == ("", f"{line}\n")


def test_stdout_is_itself_again_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout
    with pytest.raises(RuntimeError), ending():
        raise RuntimeError
    assert sys.stdout is before
    print("answer")
    assert capsys.readouterr().out == "answer\n"
