"""Fixtures: osls packages serverless.yml, and deploys it to moto, which simulates AWS on this machine."""

import json
import logging
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.cloudformation.models import CloudFormationBackend
from moto.server import ThreadedMotoServer

from tests.support.paths import ROOT
from tests.system.aws.intrinsics import REGION

ACCESS_KEY, SECRET_KEY = "somebody", "secret"
Template = dict[str, Any]


class Aws:
    """A simulated AWS account; `url` is the address of the moto server."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self, service: str) -> Any:
        """Return a boto3 client of the service, with all permissions."""
        session: Any = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        return session.client(service, endpoint_url=self.url)


def osls(*arguments: str, **environment: str) -> None:
    """Run osls in the version that the Makefile names; fail the test if osls fails."""
    [version] = re.findall(r"osls@[\d.]+", (ROOT / "Makefile").read_text())
    command = ["npx", "--yes", version, *arguments, "--stage", "example"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="package")
def aws() -> Iterator[Aws]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        # AWS validates only the syntax of a template; moto would reject it for any warning of cfn-lint.
        patch.setattr(CloudFormationBackend, "validate_template", lambda self, template: [])
        server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield Aws(f"http://{host}:{port}")
        server.stop()


@pytest.fixture(scope="package")
def packaged(aws: Aws, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that osls packaged: the CloudFormation template and the archives of the Lambda functions."""
    folder = tmp_path_factory.mktemp("package")
    certificate = aws.client("acm").request_certificate(DomainName="upres.example.org")["CertificateArn"]
    osls("package", "--package", str(folder), "--param", f"certificate={certificate}")
    return folder


@pytest.fixture(scope="package")
def template(packaged: Path) -> Template:
    read: Template = json.loads((packaged / "cloudformation-template-update-stack.json").read_text())
    return read


@pytest.fixture(scope="package")
def stack(aws: Aws, packaged: Path) -> dict[str, str]:
    """Deploy the template to moto; return the physical id of each resource that moto created, by logical id."""
    account = {"AWS_ENDPOINT_URL": aws.url, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    osls("deploy", "--package", str(packaged), **account)
    found = aws.client("cloudformation").describe_stack_resources(StackName="upres-example")["StackResources"]
    return {one["LogicalResourceId"]: one.get("PhysicalResourceId", "") for one in found if "LogicalResourceId" in one}
