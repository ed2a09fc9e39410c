"""Reading what another release wrote: unknown words stay words, and one record that cannot be read hides no other."""

import logging
from collections.abc import Iterable
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from upres.core.foreign_text import printable

log = logging.getLogger("upres")

MAX_WORD = 255
"""Longest unknown word in characters."""

M = TypeVar("M", bound=BaseModel)


class OrUnknown:
    """Metadata of a `Literal` that is read back: a word, or a number, of a newer release is kept as it is.

    So `Annotated[Stage, OrUnknown()]` also accepts the text `denoise`. The JSON Schema lists what is known.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make a union of what is known, and of texts or whole numbers (see pydantic, «Customizing validation»)."""
        numbers = all(isinstance(known, int) for known in get_args(source))
        word = core_schema.str_schema(min_length=1, max_length=MAX_WORD, strict=True)
        unknown = core_schema.int_schema() if numbers else word
        return core_schema.union_schema([handler(source), unknown], mode="left_to_right")

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of what is known."""
        return handler(schema["choices"][0])


def readable(model: type[M], records: Iterable[bytes | None]) -> list[M]:
    """Read JSON records; those that are missing or cannot be read are left out, the latter with a warning."""
    return [read for record in records if record and (read := or_none(model, record))]


def or_none(model: type[M], record: bytes | str) -> M | None:
    """Read a JSON record; None, with a warning in the log, when this release cannot read it."""
    try:
        return model.model_validate_json(record)
    except ValidationError as error:
        log.warning("a record %s cannot be read, and is left out: %s", model.__name__, first_problem(error))
        return None


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a ValidationError as one line: the name of the field, and what is wrong with it."""
    problem = error.errors(include_input=False, include_url=False)[0]
    return printable(": ".join(filter(None, (".".join(map(str, problem["loc"])), problem["msg"]))))
