"""What the doctor hears of a bucket's rules, from S3's own API (in moto)."""

from typing import Any

import boto3
import pytest
from moto import mock_aws

from client.doctor.objects import look_at_rules
from core.settings import Settings
from core.storage import Store


def rule(**filter: Any) -> dict[str, Any]:
    return {"ID": str(filter), "Status": "Enabled", "Expiration": {"Days": 14}, "Filter": filter}


@pytest.mark.parametrize(
    ("rules", "grade", "says"),
    [
        ([], "doubtful", "uploads/, results/, checkpoints/"),
        ([rule(Prefix="uploads/"), rule(Prefix="results/")], "doubtful", "checkpoints/"),
        ([rule(Prefix="")], "wrong", "models"),
        ([rule(Prefix="mod")], "wrong", "models"),
        ([rule(Prefix="uploads/"), rule(Prefix="results/"), rule(Prefix="checkpoints/")], "well", "deleted"),
        ([rule(Tag={"Key": "a", "Value": "b"})], "doubtful", "uploads/"),
    ],
)
def test_rules_are_understood(rules: list[dict[str, Any]], grade: str, says: str) -> None:
    with mock_aws():
        session = boto3.session.Session("id", "secret", region_name="us-east-1")
        s3: Any = session.client("s3")
        s3.create_bucket(Bucket="upres")
        if rules:
            s3.put_bucket_lifecycle_configuration(Bucket="upres", LifecycleConfiguration={"Rules": rules})
        finding = look_at_rules(Store(Settings(), session))
    assert (finding.grade, says in finding.found) == (grade, True), finding
