"""Request bodies of the inference routes, and the one query that both become.

The two routes read a flat list of two strings differently, as the services they are compatible with do:
``POST /`` (Hugging Face) takes it for a batch of two texts, ``POST /predict`` (text-embeddings-inference) for one pair.
"""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, InstanceOf, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails

from pruning.tokenization import Direction, Text
from service.classification import Activation, Ranking
from service.errors import Invalid
from service.levels import Quality, Wish

Model = TypeVar("Model", bound=BaseModel)

MAX_FAULTS = 5
"""Wrong fields named in one answer."""
MAX_NAME = 80
"""Characters of an unknown field's name that an answer repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One request, whatever route it came by."""

    texts: list[Text]
    nested: bool
    """Whether the answer is a list for each text, or the only text's own list."""
    truncate: bool
    """Cut texts that are longer than the model's positions, rather than refuse them."""
    direction: Direction
    ranking: Ranking
    wish: Wish = field(default_factory=Wish)
    """The level that it asks for."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The texts of a request; ``batch`` tells whether they came as a list of texts."""

    texts: list[Text]
    batch: bool


def _hub_inputs(value: Any) -> Inputs:
    """Read ``str | list[str]``."""
    if isinstance(value, str):
        return Inputs([value], batch=False)
    if not isinstance(value, list) or not value:
        raise ValueError(f"must be a string or a list of at least one string, not {_kind(value)}")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise ValueError(f"item {index} must be a string, not {_kind(text)}")
    return Inputs(value, batch=True)


def _tei_inputs(value: Any) -> Inputs:
    """Read ``str``, ``[str]``, a pair ``[str, str]``, or a list of ``[str]`` and ``[str, str]``."""
    if isinstance(value, str):
        return Inputs([value], batch=False)
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"must be a string, a pair of strings or a list of lists of one or two strings, not {_kind(value)}"
        )
    if isinstance(value[0], str):
        return Inputs([_text(value, "")], batch=False)
    return Inputs([_text(item, f"item {index} ") for index, item in enumerate(value)], batch=True)


def _text(value: Any, where: str) -> Text:
    """Read ``[text]`` or ``[text, other text]``."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        if len(value) == 1:
            return str(value[0])
        if len(value) == 2:
            return value[0], value[1]
    raise ValueError(f"{where}must be a list of one or two strings (a batch is a list of such lists)")


def _kind(value: Any) -> str:
    """Say what ``value`` is, in the words of JSON, without repeating it."""
    if isinstance(value, list) and not value:
        return "an empty list"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


_STRING = {"type": "string", "minLength": 1}
_TEXT_OR_PAIR = {"type": "array", "items": _STRING, "minItems": 1, "maxItems": 2}

HubInputs = Annotated[
    InstanceOf[Inputs],
    BeforeValidator(_hub_inputs),
    WithJsonSchema(
        {
            "anyOf": [_STRING, {"type": "array", "items": _STRING, "minItems": 1}],
            "description": "One text, or a list of texts that are judged one by one.",
            "examples": ["What a lovely day", ["What a lovely day", "The soup was cold"]],
        }
    ),
]
TeiInputs = Annotated[
    InstanceOf[Inputs],
    BeforeValidator(_tei_inputs),
    WithJsonSchema(
        {
            "anyOf": [_STRING, _TEXT_OR_PAIR, {"type": "array", "items": _TEXT_OR_PAIR, "minItems": 1}],
            "description": "One text; a pair, as a flat list of two; or a batch: a list of [text] or [text, text].",
            "examples": ["What a lovely day", [["What a lovely day"], ["The soup was cold"]]],
        }
    ),
]


class _Strict(BaseModel):
    """Unknown names are refused, and nothing is converted: ``"3"`` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class LevelParameters(_Strict):
    """Which level answers: ours alone, on every route that classifies."""

    sparsity: float | None = Field(
        default=None, ge=0, lt=1, allow_inf_nan=False, description="Sparsity of the loaded level that shall answer."
    )
    quality: Annotated[Quality, Field(strict=False)] | None = Field(
        default=None, description="The densest level, the default one, or the sparsest that the service allows."
    )

    cascade: bool | None = Field(
        default=None, description="Whether the dense model answers the texts that the level is not sure of."
    )

    def wish(self) -> Wish:
        """Return what is asked of the dial."""
        return Wish(sparsity=self.sparsity, quality=self.quality, cascade=self.cascade)


class HubParameters(LevelParameters):
    """Parameters of the Hugging Face text-classification task."""

    top_k: int | None = Field(default=None, ge=1, description="Labels in the answer, best first. Default: all.")
    function_to_apply: Annotated[Activation, Field(strict=False)] | None = Field(
        default=None, description="Turns logits into scores. Default: softmax, or sigmoid for a single label."
    )
    truncation: bool | Literal["longest_first", "do_not_truncate"] = Field(
        default=True, description="Cut texts longer than the model's positions; otherwise they are refused."
    )
    truncation_direction: Annotated[Direction, Field(strict=False)] = Field(
        default=Direction.RIGHT, description="The end at which a long text is cut."
    )


class HubOptions(_Strict):
    """Options of the Hugging Face Inference API: accepted, and without effect on a server that is always loaded.

    These are all that ``huggingface.js`` puts into a body; ``InferenceClient`` sends none.
    """

    use_cache: bool = True
    use_gpu: bool = False
    wait_for_model: bool = False
    dont_load_model: bool = False
    retry_on_error: bool = True


class HubRequest(_Strict):
    """Body of ``POST /``: the Hugging Face text-classification task."""

    inputs: HubInputs
    parameters: HubParameters | None = None
    options: HubOptions | None = None

    def query(self) -> Query:
        """Return the query; its answer is always nested, as Hugging Face clients expect."""
        parameters = self.parameters or HubParameters()
        return Query(
            texts=self.inputs.texts,
            nested=True,
            truncate=parameters.truncation not in (False, "do_not_truncate"),
            direction=parameters.truncation_direction,
            ranking=Ranking(activation=parameters.function_to_apply, top_k=parameters.top_k),
            wish=parameters.wish(),
        )


class TeiRequest(_Strict):
    """Body of ``POST /predict``: the text-embeddings-inference shape."""

    inputs: TeiInputs
    truncate: bool | None = Field(
        default=None, description="Cut texts longer than the model's positions. Default: true; false refuses them."
    )
    truncation_direction: Annotated[Direction, Field(strict=False)] = Field(
        default=Direction.RIGHT, description="The end at which a long text is cut."
    )
    raw_scores: bool = Field(default=False, description="Answer logits instead of probabilities.")
    parameters: LevelParameters | None = None

    def query(self) -> Query:
        """Return the query; the answer to a single input is flat."""
        return Query(
            texts=self.inputs.texts,
            nested=self.inputs.batch,
            truncate=self.truncate is not False,
            direction=self.truncation_direction,
            ranking=Ranking(activation=Activation.NONE if self.raw_scores else None),
            wish=(self.parameters or LevelParameters()).wish(),
        )


class LabelScore(BaseModel):
    """One label of an answer."""

    label: str
    score: float


def parse(schema: type[Model], body: Any) -> Model:
    """Return ``body`` as ``schema``.

    Raises:
        Invalid: names every field that is missing, unknown or wrong; values are not repeated.
    """
    if not isinstance(body, dict):
        raise Invalid(f"The body must be a JSON object with '{next(iter(schema.model_fields))}', not {_kind(body)}.")
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        shown = "; ".join(_fault(fault) for fault in faults[:MAX_FAULTS])
        more = f"; and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        raise Invalid(f"{shown}{more}.") from error


def _fault(fault: ErrorDetails) -> str:
    """Say which field is wrong, and how."""
    name = ".".join(str(part)[:MAX_NAME] for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"{name} is not known here"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}"
