"""What the server says, as TypeScript types."""

import json
from typing import Any

from pydantic import BaseModel

from upres.core.schema import StrictModel


def typescript(node: dict[str, Any]) -> str:
    """A field's JSON schema as a TypeScript type."""
    match node:
        case {"$ref": name}:
            return f"upres.{name.rpartition('/')[2]}"
        case {"enum": values}:
            return " | ".join(map(json.dumps, values))
        case {"const": value}:
            return json.dumps(value)
        case {"anyOf": [value, {"type": "null"}]}:  # null is left out of answers (function/app.py)
            return typescript(value)
        case {"type": "array", "items": items}:
            return f"({typescript(items)})[]"
        case {"type": "object", "propertyNames": names, "additionalProperties": values}:
            return f"Partial<Record<{typescript(names)}, {typescript(values)}>>"
        case {"type": "object", "additionalProperties": values}:
            return f"Record<string, {typescript(values)}>"
    return "number" if node["type"] == "integer" else str(node["type"])


def interface(model: type[BaseModel]) -> str:
    """A model as a TypeScript type: in requests what has a default is optional, in answers what may be null."""
    whole = model.model_json_schema()
    request = issubclass(model, StrictModel)
    optional = {name for name, field in whole["properties"].items() if "anyOf" in field}
    optional |= {name for name in whole["properties"] if request and name not in whole["required"]}
    fields = ((f"{name}?" if name in optional else name, field) for name, field in whole["properties"].items())
    return f"{{ {'; '.join(f'{name}: {typescript(field)}' for name, field in fields)} }}"
