"""Commands run as from a shell, and what a refusal must look like."""

from typer.testing import CliRunner, Result

from service.cli import app


def run(*arguments: object, **variables: str) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=variables, catch_exceptions=False)


def refused(result: Result, exit_code: int, *words: str) -> bool:
    """Tell whether a command ended as it should: the code, every word on stderr, nothing on stdout, no traceback."""
    assert (result.exit_code, result.stdout) == (exit_code, ""), result.output
    assert "Traceback" not in result.stderr
    missing = [word for word in words if word not in result.stderr]
    assert not missing, f"{missing} not in: {result.stderr}"
    return True
