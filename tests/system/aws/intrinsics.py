"""Evaluates the CloudFormation functions Ref, Fn::GetAtt, Fn::Sub and Fn::Join, as CloudFormation does."""

import re
from collections.abc import Mapping
from typing import Any

ACCOUNT = "123456789012"
REGION = "eu-central-1"
PSEUDO = {"AWS::AccountId": ACCOUNT, "AWS::Partition": "aws", "AWS::Region": REGION, "AWS::URLSuffix": "amazonaws.com"}


def resolved(value: Any, known: Mapping[str, str]) -> Any:
    """Return the value with its functions evaluated; a `Name` or `Name.Attribute` that `known` lacks stays as text."""

    def look_up(name: str) -> str:
        return PSEUDO.get(name) or known.get(name, name)

    match value:
        case {"Ref": str(name)}:
            return look_up(name)
        case {"Fn::GetAtt": [name, attribute]}:
            return look_up(f"{name}.{attribute}")
        case {"Fn::Sub": str(text)}:
            return re.sub(r"\$\{([\w:.]+)}", lambda found: look_up(found[1]), text)
        case {"Fn::Join": [between, parts]}:
            return between.join(resolved(part, known) for part in parts)
        case dict():
            return {name: resolved(one, known) for name, one in value.items()}
        case list():
            return [resolved(one, known) for one in value]
    return value
