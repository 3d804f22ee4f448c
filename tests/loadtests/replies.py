"""Replies made by hand."""

from loadtests.records import Reply


def reply(
    *,
    index: int = 0,
    intended_s: float = 0.0,
    sent_s: float | None = None,
    done_s: float = 1.0,
    status: int = 200,
    error: str | None = None,
    generation: int | None = 1,
    sparsity: float | None = 0.5,
    connection: int = 0,
    retry_after: str | None = None,
) -> Reply:
    return Reply(
        index=index,
        intended_s=intended_s,
        sent_s=intended_s if sent_s is None else sent_s,
        done_s=done_s,
        status=status,
        error=error,
        generation=generation,
        sparsity=sparsity,
        connection=connection,
        retry_after=retry_after,
    )
