"""The resources that osls deploys: checked through moto's API, or in the template where moto lacks the type."""

import re
from datetime import timedelta
from typing import Any

import pytest

from tests.support.paths import ROOT
from tests.system.aws.conftest import Aws, Template
from tests.system.aws.intrinsics import resolved
from upres.core import keys
from upres.core.settings import PREFIX, Settings
from upres.function import stream

NOT_IN_MOTO = {
    "AWS::ApiGatewayV2::Api": "osls writes it",
    "AWS::ApiGatewayV2::Integration": "osls writes it",
    "AWS::ApiGatewayV2::Route": "osls writes it",
    "AWS::ApiGatewayV2::Stage": "osls writes it",
    "AWS::ApplicationAutoScaling::ScalableTarget": "test_scaling.py makes it itself",
    "AWS::ApplicationAutoScaling::ScalingPolicy": "test_scaling.py makes them itself",
    "AWS::CloudWatch::Alarm": "test_alarms.py makes them itself",
    "AWS::ECS::CapacityProvider": "read in the template below",
    "AWS::ECS::ClusterCapacityProviderAssociations": "only names the one above",
    "AWS::ElastiCache::ParameterGroup": "test_queue.py reads it in the template",
    "AWS::ElastiCache::ReplicationGroup": "test_queue.py reads it in the template",
    "AWS::ElastiCache::SubnetGroup": "test_queue.py reads it in the template",
    "AWS::ElastiCache::User": "test_queue.py reads them in the template",
    "AWS::ElastiCache::UserGroup": "test_queue.py reads it in the template",
    "AWS::Lambda::EventInvokeConfig": "osls writes it",
    "AWS::S3::BucketPolicy": "read in the template below; of the other bucket, osls writes it",
    "AWS::SecretsManager::Secret": "test_queue.py reads them in the template",
}
"""Resource types that moto's CloudFormation does not create → the reason to skip them, or where they are tested."""


def test_every_resource_is_deployed_except_types_unknown_to_moto(stack: dict[str, str], template: Template) -> None:
    types = {name: one["Type"] for name, one in template["Resources"].items()}
    assert {type for name, type in types.items() if name not in stack} == set(NOT_IN_MOTO)
    assert not {types[name] for name in stack} & set(NOT_IN_MOTO)


def test_the_bucket_is_private_requires_tls_and_allows_cors_get_and_put(
    stack: dict[str, str], template: Template
) -> None:
    """Read in the template; tests/system/test_housekeeping.py tests the lifecycle rules of the bucket."""
    assert stack["Bucket"]
    bucket = template["Resources"]["Bucket"]["Properties"]
    block = bucket["PublicAccessBlockConfiguration"]
    assert (len(block), all(block.values())) == (4, True)
    [rule] = bucket["CorsConfiguration"]["CorsRules"]
    assert (rule["AllowedOrigins"], set(rule["AllowedMethods"])) == (["*"], {"GET", "PUT"})
    [statement] = template["Resources"]["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Condition"]) == ("Deny", {"Bool": {"aws:SecureTransport": "false"}})


def variables(aws: Aws, template: Template) -> dict[str, dict[str, str]]:
    """Return the environment variables of each function and container, by name of the part."""
    found: dict[str, dict[str, str]] = {}
    for one in aws.client("lambda").list_functions()["Functions"]:
        found[one["FunctionName"].rpartition("-")[2]] = one["Environment"]["Variables"]
    for name in ("WorkerTask", "GatewayTask"):
        [container] = template["Resources"][name]["Properties"]["ContainerDefinitions"]
        given = {one["Name"]: one["Value"] for one in resolved(container["Environment"], {})}
        secrets = {one["Name"]: f"secret {one['ValueFrom']}" for one in resolved(container["Secrets"], {})}
        found[container["Name"]] = given | secrets
    return found


SAME = {"UPRES_ACCESS": "keys", "UPRES_MODEL": "photo", "UPRES_PUBLIC_URL": "https://upres.example.org"}


def test_each_part_gets_the_environment_variables_that_it_needs(
    aws: Aws, stack: dict[str, str], template: Template
) -> None:
    found = variables(aws, template)
    by_cloudformation = "{{resolve:secretsmanager:${FunctionRedisUrl}:SecretString:::}}"
    assert found["entry"] == {**SAME, "UPRES_REDIS_URL": by_cloudformation, "UPRES_S3_BUCKET": stack["Bucket"]}
    assert found["backlog"] == {"UPRES_REDIS_URL": by_cloudformation}
    region = {"AWS_DEFAULT_REGION": "eu-central-1"}
    for_gateway = {**SAME, **region, "UPRES_REDIS_URL": "secret FunctionRedisUrl", "UPRES_S3_BUCKET": "Bucket"}
    assert found["gateway"] == {**for_gateway, "FORWARDED_ALLOW_IPS": "Network.CidrBlock"}
    assert found["worker"]["UPRES_REDIS_URL"] == "secret WorkerRedisUrl"


def test_every_upres_environment_variable_is_a_known_setting(
    aws: Aws, stack: dict[str, str], template: Template
) -> None:
    for environment in variables(aws, template).values():
        names = {name.removeprefix(PREFIX).lower() for name in environment if name.startswith(PREFIX)}
        assert names <= set(Settings.model_fields)
        resolved = {**environment, "UPRES_REDIS_URL": "rediss://host:6379/0"}  # moto resolves no references to secrets
        assert Settings.from_environment(resolved).max_input_megabytes == 20


def test_functions_have_no_route_to_the_internet(aws: Aws, stack: dict[str, str]) -> None:
    for function in aws.client("lambda").list_functions()["Functions"]:
        assert set(function["VpcConfig"]["SubnetIds"]) == {stack["PrivateA"], stack["PrivateB"]}
    ec2 = aws.client("ec2")
    [table] = ec2.describe_route_tables(RouteTableIds=[stack["PrivateRoutes"]])["RouteTables"]
    assert all(route.get("GatewayId", "").startswith(("local", "vpce-")) for route in table["Routes"])
    [endpoint] = ec2.describe_vpc_endpoints(VpcEndpointIds=[stack["StoreEndpoint"]])["VpcEndpoints"]
    assert endpoint["RouteTableIds"] == [stack["PrivateRoutes"]]


def test_only_the_load_balancer_accepts_connections_from_the_internet(aws: Aws, stack: dict[str, str]) -> None:
    groups = aws.client("ec2").describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [stack["Network"]]}])
    open_to_all = {
        (group["GroupId"], permission["FromPort"])
        for group in groups["SecurityGroups"]
        for permission in group["IpPermissions"]
        if permission["IpRanges"]
    }
    balancer = stack["LoadBalancerSecurityGroup"]
    assert {(group, port) for group, port in open_to_all if port} == {(balancer, 80), (balancer, 443)}


def test_the_backlog_function_runs_every_minute_without_retries(
    aws: Aws, stack: dict[str, str], template: Template
) -> None:
    events = aws.client("events")
    [rule] = events.list_rules()["Rules"]
    [target] = events.list_targets_by_rule(Rule=rule["Name"])["Targets"]
    assert (rule["ScheduleExpression"], rule["State"]) == ("rate(1 minute)", "ENABLED")
    assert target["Arn"].endswith(":function:upres-example-backlog")
    assert template["Resources"]["BacklogLambdaEvConf"]["Properties"]["MaximumRetryAttempts"] == 0


def container(aws: Aws, stack: dict[str, str], task: str) -> Any:
    [found] = aws.client("ecs").describe_task_definition(taskDefinition=stack[task])["taskDefinition"][
        "containerDefinitions"
    ]
    return found


@pytest.mark.parametrize(("task", "file"), [("WorkerTask", "worker"), ("GatewayTask", "function")])
def test_containers_run_as_the_image_user_read_only_without_capabilities(
    aws: Aws, stack: dict[str, str], task: str, file: str
) -> None:
    """The user is the one of the Dockerfile."""
    found = container(aws, stack, task)
    image = (ROOT / f"infra/docker/{file}.Dockerfile").read_text()
    assert found["user"] == re.findall(r"^USER (\S+)$", image, re.MULTILINE)[-1]
    assert found["readonlyRootFilesystem"]
    assert found["linuxParameters"]["capabilities"]["drop"] == ["ALL"]


def test_a_worker_can_write_to_tmp_and_to_the_cache_folder_of_its_image(aws: Aws, stack: dict[str, str]) -> None:
    found = container(aws, stack, "WorkerTask")
    image = (ROOT / "infra/docker/worker.Dockerfile").read_text()
    [cache] = re.findall(r"UPRES_CACHE_DIR=(\S+)", image)
    assert {one["containerPath"] for one in found["linuxParameters"]["tmpfs"]} == {"/tmp", cache}


def test_a_worker_has_a_gpu_a_health_check_and_time_to_finish_its_jobs(aws: Aws, stack: dict[str, str]) -> None:
    found = container(aws, stack, "WorkerTask")
    settings = Settings.from_environment({one["name"]: one["value"] for one in found["environment"]})
    assert found["resourceRequirements"] == [{"type": "GPU", "value": "1"}]
    assert found["stopTimeout"] > settings.stop_seconds >= keys.JOB_SECONDS
    assert f"http://127.0.0.1:{settings.metrics_port}/healthz" in found["healthCheck"]["command"][-1]


def test_zone_rebalancing_is_off_and_instances_with_tasks_are_protected(template: Template) -> None:
    service = template["Resources"]["WorkerService"]["Properties"]
    capacity = template["Resources"]["WorkerCapacity"]["Properties"]["AutoScalingGroupProvider"]
    assert (service["DesiredCount"], service["AvailabilityZoneRebalancing"]) == (0, "DISABLED")
    assert capacity["ManagedTerminationProtection"] == capacity["ManagedDraining"] == "ENABLED"
    assert capacity["ManagedScaling"]["Status"] == "ENABLED"


def test_worker_instances_scale_from_zero_and_are_protected_from_scale_in(aws: Aws, stack: dict[str, str]) -> None:
    [group] = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["MinSize"], group["DesiredCapacity"], group["MaxSize"]) == (0, 0, 4)
    assert group["NewInstancesProtectedFromScaleIn"]
    [version] = aws.client("ec2").describe_launch_template_versions(LaunchTemplateId=stack["WorkerTemplate"])[
        "LaunchTemplateVersions"
    ]
    data = version["LaunchTemplateData"]
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"]


def test_the_load_balancer_forwards_streams_and_redirects_http_to_https(
    aws: Aws, stack: dict[str, str], template: Template
) -> None:
    elb = aws.client("elbv2")
    listeners = elb.describe_listeners(LoadBalancerArn=stack["LoadBalancer"])["Listeners"]
    [forward], [redirect] = (one["DefaultActions"] for one in sorted(listeners, key=lambda one: -one["Port"]))
    assert forward["TargetGroupArn"] == stack["GatewayTargets"]
    assert redirect["RedirectConfig"]["Protocol"] == "HTTPS"
    [targets] = elb.describe_target_groups(TargetGroupArns=[stack["GatewayTargets"]])["TargetGroups"]
    assert (targets["HealthCheckPath"], targets["Port"]) == ("/healthz", 8000)
    attributes = template["Resources"]["LoadBalancer"]["Properties"]["LoadBalancerAttributes"]
    idle = {one["Key"]: one["Value"] for one in attributes}["idle_timeout.timeout_seconds"]
    assert timedelta(seconds=int(idle)) >= timedelta(seconds=2 * stream.HEARTBEAT_SECONDS)
