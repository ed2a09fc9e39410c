"""Converts the server's message models to TypeScript types."""

import json
from typing import Any

from pydantic import BaseModel

from upres.core.schema import StrictModel


def typescript(node: dict[str, Any]) -> str:
    """Convert the JSON schema of a field to a TypeScript type."""
    match node:
        case {"$ref": name}:
            return f"upres.{name.rpartition('/')[2]}"
        case {"enum": values}:
            return " | ".join(map(json.dumps, values))
        case {"const": value}:
            return json.dumps(value)
        case {"anyOf": [value, {"type": "null"}]}:  # responses omit fields that are null (function/app.py)
            return typescript(value)
        case {"type": "array", "items": items}:
            return f"({typescript(items)})[]"
        case {"type": "object", "propertyNames": names, "additionalProperties": values}:
            return f"Partial<Record<{typescript(names)}, {typescript(values)}>>"
        case {"type": "object", "additionalProperties": values}:
            return f"Record<string, {typescript(values)}>"
    return "number" if node["type"] == "integer" else str(node["type"])


def interface(model: type[BaseModel]) -> str:
    """Convert a model to a TypeScript type; fields with a default (requests) or null (responses) are optional."""
    whole = model.model_json_schema()
    request = issubclass(model, StrictModel)
    optional = {name for name, field in whole["properties"].items() if "anyOf" in field}
    optional |= {name for name in whole["properties"] if request and name not in whole["required"]}
    fields = ((f"{name}?" if name in optional else name, field) for name, field in whole["properties"].items())
    return f"{{ {'; '.join(f'{name}: {typescript(field)}' for name, field in fields)} }}"
