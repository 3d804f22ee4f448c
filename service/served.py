"""What the routes can answer with; anything else is refused before it is served."""

from pruning.encoder import BaseModel
from pruning.errors import ModelError
from pruning.heads import Head


def require_served(base: BaseModel) -> None:
    """Refuse a model that no inference route answers for.

    Raises:
        ModelError: its head is none that picks a label for a text.
    """
    if base.shape.head is not Head.LABEL:
        raise ModelError(
            f"{base.name} is a model for {base.shape.head}, which no route of this version answers: it serves "
            f"{Head.LABEL}. Cut and compare it with 'sparsedial prepare', 'prune' and 'frontier', or serve a classifier"
        )
