"""`upres doctor` reads the lifecycle rules of a bucket through the S3 API (moto) and finds missing or harmful rules."""

import secrets
from typing import Any

import boto3
import pytest

from tests.system.aws.conftest import ACCESS_KEY, SECRET_KEY, Aws
from tests.system.aws.intrinsics import REGION
from upres.console.doctor.store import check_lifecycle
from upres.core.settings import Settings
from upres.core.storage import Store


def rule(**filter: Any) -> dict[str, Any]:
    return {"ID": str(filter), "Status": "Enabled", "Expiration": {"Days": 14}, "Filter": filter}


@pytest.mark.parametrize(
    ("rules", "grade", "says"),
    [
        ([], "warning", "uploads/, results/, checkpoints/"),
        ([rule(Prefix="uploads/"), rule(Prefix="results/")], "warning", "checkpoints/"),
        ([rule(Prefix="")], "fault", "models"),
        ([rule(Prefix="mod")], "fault", "models"),
        ([rule(Prefix="uploads/"), rule(Prefix="results/"), rule(Prefix="checkpoints/")], "ok", "deleted"),
        ([rule(Tag={"Key": "a", "Value": "b"})], "warning", "uploads/"),
    ],
)
def test_the_doctor_grades_the_lifecycle_rules_of_a_bucket(
    aws: Aws, rules: list[dict[str, Any]], grade: str, says: str
) -> None:
    bucket, s3 = f"rules-{secrets.token_hex(6)}", aws.client("s3")
    s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    if rules:
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
    finding = check_lifecycle(Store(Settings(s3_bucket=bucket, s3_endpoint_url=aws.url), session))
    assert (finding.grade, says in finding.found) == (grade, True), finding
