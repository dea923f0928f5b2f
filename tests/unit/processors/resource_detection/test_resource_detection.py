"""Each detector finds what its source says, against stand-ins for the services of clouds, Docker and Kubernetes."""

import os
import platform
import socket
from datetime import UTC, datetime

import pytest

from collector.gpu.backend import BackendUnavailableError, Device
from collector.model import Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, make_settings
from collector.testing import batch as make_batch
from processors.resource_detection import aws, factory, local, services
from processors.resource_detection.aws import Credentials, signed_headers

VARIABLES = (
    "OTEL_RESOURCE_ATTRIBUTES", "OTEL_RESOURCE", "KUBERNETES_SERVICE_HOST", "AWS_LAMBDA_FUNCTION_NAME", "K_SERVICE",
    "HEROKU_APP_ID", "GAE_SERVICE", "CLOUD_RUN_JOB", "FUNCTION_TARGET", "DOCKER_HOST", "K8S_NODE_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL_EC2",
    "AWS_ENDPOINT_URL_STS",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch):
    """Neither the environment nor a real metadata service takes part."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:1")
    monkeypatch.setattr(services, "AZURE_ENDPOINT", "http://127.0.0.1:1")


async def started(telemetry=None, clock=None, signal=Signal.TRACES, settings=None, **options):
    settings = settings or make_settings(
        factory, signals={signal}, telemetry=telemetry or RecordingTelemetry(), clock=clock or FakeClock()
    )
    processor = factory.create(settings, factory.config_type.model_validate(options))
    await processor.start(FakeHost())
    return processor


async def detected(*detectors, **options):
    """The attributes that the detectors find."""
    processor = await started(detectors=detectors, timeout="2s", **options)
    await processor.shutdown()
    return processor._attributes


async def test_env(monkeypatch):
    """Values are URL-encoded; white space around keys and values does not count."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", " a = 1 ,b=x%20y%2Cz, c=")
    assert await detected("env") == {"a": "1", "b": "x y,z"}
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES")
    assert await detected("env") == {}


async def test_system(monkeypatch):
    """Host name and type of operating system by default, the others if they are enabled."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    found = await detected("system", system={"hostname_sources": ["os"]})
    assert found == {"host.name": "node-7", "os.type": platform.system().lower()}
    names = ["host.arch", "os.description", "host.ip", "host.interface", "host.cpu.model.name", "os.type"]
    switches = {name: {"enabled": name != "os.type"} for name in names}
    found = await detected("system", system={"hostname_sources": ["os"], "resource_attributes": switches})
    assert set(found) >= {"host.name", "host.arch", "os.description"}
    assert "os.type" not in found
    assert "127.0.0.1" not in found.get("host.ip", [])


@pytest.mark.parametrize(
    ("fqdn", "sources", "expected"),
    [
        ("node-7.example.com", ["dns", "os"], "node-7.example.com"),
        ("node-7", ["dns", "os"], "node-7"),
        ("localhost.localdomain", ["dns", "os"], "node-7"),
    ],
)
async def test_the_first_source_with_a_name_counts(monkeypatch, fqdn, sources, expected):
    """A name without a domain is not a fully qualified one."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    monkeypatch.setattr(socket, "getfqdn", lambda name: fqdn)
    assert (await detected("system", system={"hostname_sources": sources}))["host.name"] == expected


EC2 = {
    ("PUT", "/latest/api/token"): ({"X-aws-ec2-metadata-token-ttl-seconds": "300"}, "t0ken"),
    ("GET", "/latest/dynamic/instance-identity/document"): (
        {"X-aws-ec2-metadata-token": "t0ken"},
        {
            "region": "eu-central-1",
            "accountId": "123",
            "availabilityZone": "eu-central-1a",
            "instanceId": "i-1",
            "imageId": "ami-1",
            "instanceType": "m7i.large",
        },
    ),
    ("GET", "/latest/meta-data/hostname"): ({"X-aws-ec2-metadata-token": "t0ken"}, "ip-10-0-0-1"),
    ("GET", "/latest/meta-data/tags/instance"): ({"X-aws-ec2-metadata-token": "t0ken"}, "team\nsecret"),
    ("GET", "/latest/meta-data/tags/instance/team"): ({"X-aws-ec2-metadata-token": "t0ken"}, "search"),
}
EC2_FOUND = {
    "cloud.provider": "aws",
    "cloud.platform": "aws_ec2",
    "cloud.region": "eu-central-1",
    "cloud.account.id": "123",
    "cloud.availability_zone": "eu-central-1a",
    "host.id": "i-1",
    "host.image.id": "ami-1",
    "host.type": "m7i.large",
    "host.name": "ip-10-0-0-1",
}


TAGS = """<?xml version="1.0"?><DescribeTagsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><tagSet>
<item><resourceId>i-1</resourceId><resourceType>instance</resourceType><key>team</key><value>search &amp; ads</value></item>
<item><resourceId>i-1</resourceId><resourceType>instance</resourceType><key>secret</key><value/></item>
<item><resourceId>i-1</resourceId><resourceType>instance</resourceType><key>%s</key><value>%s</value></item>
</tagSet></DescribeTagsResponse>"""
TOKEN = {"X-aws-ec2-metadata-token": "t0ken"}
ROLE = {
    ("GET", "/latest/meta-data/iam/security-credentials/"): (TOKEN, "node\n"),
    ("GET", "/latest/meta-data/iam/security-credentials/node"): (
        TOKEN,
        {"AccessKeyId": "AKI", "SecretAccessKey": "key", "Token": "session"},
    ),
}


async def test_ec2(stand_in, monkeypatch):
    """With a token, and only the tags that match."""
    server = await stand_in(EC2)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{server.address}")
    assert await detected("ec2") == EC2_FOUND
    options = {"tags": ["^te"], "tags_from_imds": True}
    assert await detected("ec2", ec2=options) == EC2_FOUND | {"ec2.tag.team": "search"}


async def test_tags_of_the_ec2_api(stand_in, monkeypatch):
    """Asked for with a signature by the credentials of the instance, of the environment or of the pod."""
    server = await stand_in(EC2 | ROLE | {("POST", "/"): ({"x-amz-security-token": "session"}, TAGS % ("a", "b"))})
    url = f"http://{server.address}"
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", url)
    expected = EC2_FOUND | {"ec2.tag.team": "search & ads"}
    assert await detected("ec2", ec2={"tags": ["^te"]}) == expected
    method, _, headers = server.requests[-1]
    assert method == "POST"
    assert headers["Authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKI/")
    assert "Action=DescribeTags" in server.bodies[-1]
    assert "Filter.1.Value.1=i-1" in server.bodies[-1]
    for name, value in (("ACCESS_KEY_ID", "OWN"), ("SECRET_ACCESS_KEY", "x"), ("SESSION_TOKEN", "session")):
        monkeypatch.setenv(f"AWS_{name}", value)
    assert await detected("ec2", ec2={"tags": ["^te"]}) == expected
    assert "Credential=OWN/" in server.requests[-1][2]["Authorization"]


async def test_credentials_of_a_pod(stand_in, monkeypatch, tmp_path):
    """Those of its service account, for which the token is exchanged, or those of EKS Pod Identity."""
    token = tmp_path / "token"
    token.write_text("jwt\n")
    answer = (
        "<R><AccessKeyId>STS</AccessKeyId><SecretAccessKey>x</SecretAccessKey><SessionToken>session</SessionToken></R>"
    )
    tags = await stand_in({("POST", "/"): ({"x-amz-security-token": "session"}, TAGS % ("a", "b"))})
    sts = await stand_in({("POST", "/"): ({}, answer)})
    imds = await stand_in(EC2)
    agent = {"AccessKeyId": "AGENT", "SecretAccessKey": "x", "Token": "session"}
    pods = await stand_in({("GET", "/v1/credentials"): ({"Authorization": "jwt"}, agent)})
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{imds.address}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", f"http://{tags.address}")
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://{sts.address}")
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123:role/tailrace")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(token))
    await detected("ec2", ec2={"tags": ["."]})
    assert "Credential=STS/" in tags.requests[-1][2]["Authorization"]
    assert "WebIdentityToken=jwt" in sts.bodies[-1]
    monkeypatch.delenv("AWS_ROLE_ARN")
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{pods.address}/v1/credentials")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    await detected("ec2", ec2={"tags": ["."]})
    assert "Credential=AGENT/" in tags.requests[-1][2]["Authorization"]


def test_signatures_are_those_of_aws():
    """The case post-x-www-form-urlencoded of the test suite of Signature Version 4."""
    credentials = Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
    headers = signed_headers(
        credentials, "us-east-1", "service", "https://example.amazonaws.com", b"Param1=value1", now
    )
    assert headers["authorization"].endswith(
        "Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
    )


@pytest.mark.parametrize(("attempts", "count"), [(1, 0), (3, 1)])
async def test_requests_are_repeated_as_often_as_configured(stand_in, monkeypatch, attempts, count):
    """After failures that may pass; the pauses are random, but none is longer than ``max_backoff``."""
    failing = EC2 | {("GET", "/latest/meta-data/hostname"): [503, 429, EC2["GET", "/latest/meta-data/hostname"]]}
    server = await stand_in(failing)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{server.address}")
    pauses = []

    async def sleep(seconds):
        pauses.append(seconds)

    monkeypatch.setattr(aws.asyncio, "sleep", sleep)
    found = await detected("ec2", ec2={"max_attempts": attempts, "max_backoff": "10ms"})
    assert (found == EC2_FOUND) == bool(count)
    assert len(pauses) == attempts - 1
    assert all(0 <= pause <= 0.01 for pause in pauses)


async def test_refusals_are_not_repeated(stand_in, monkeypatch):
    """They would be the same again."""
    server = await stand_in({("PUT", "/latest/api/token"): 403})
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{server.address}")
    assert await detected("ec2") == {}
    assert len(server.requests) == 1


async def test_eks(stand_in, authority, monkeypatch):
    """Recognised by the version of the Kubernetes API, or by the identity of the pod."""
    imds = await stand_in(EC2)
    bearer = {"Authorization": "Bearer t0ken"}
    api = await stand_in({("GET", "/version"): (bearer, {"gitVersion": "v1.30.4-eks-a737599"})}, tls=authority.tls)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://{imds.address}")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", api.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    monkeypatch.setattr(services, "SERVICE_ACCOUNT", authority.folder)
    assert await detected("eks") == {"cloud.provider": "aws", "cloud.platform": "aws_eks"}
    options = {"resource_attributes": {"host.id": {"enabled": True}}}
    assert (await detected("eks", eks=options))["host.id"] == "i-1"
    named = {"resource_attributes": {"k8s.cluster.name": {"enabled": True}}}
    for key, value, expected in (
        ("aws:eks:cluster-name", "main", "main"),
        ("eks:cluster-name", "main", "main"),
        ("kubernetes.io/cluster/main", "owned", "main"),
        ("other", "main", None),
    ):
        tags = await stand_in({("POST", "/"): ({}, TAGS % (key, value))})
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", f"http://{tags.address}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OWN")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
        assert (await detected("eks", eks=named)).get("k8s.cluster.name") == expected
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    assert await detected("eks") == {}


GOOGLE = {"Metadata-Flavor": "Google"}
GCE = {
    "project": {"projectId": "shop"},
    "instance": {
        "id": 42,
        "name": "vm-1",
        "hostname": "vm-1.c.shop.internal",
        "zone": "projects/7/zones/europe-west3-a",
        "machineType": "projects/7/machineTypes/n2-standard-2",
        "attributes": {"cluster-name": "prod", "cluster-location": "europe-west3"},
    },
}


async def test_gcp(stand_in, monkeypatch):
    """A virtual machine, a node of GKE, and Cloud Run; labels come from the Compute API."""
    server = await stand_in(
        {
            ("GET", "/computeMetadata/v1/"): (GOOGLE, GCE),
            ("GET", "/computeMetadata/v1/instance/service-accounts/default/token"): (GOOGLE, {"access_token": "abc"}),
            ("GET", "/compute/v1/projects/shop/zones/europe-west3-a/instances/vm-1"): (
                {"Authorization": "Bearer abc"},
                {"labels": {"team": "search", "other": "x"}},
            ),
        }
    )
    monkeypatch.setenv("GCE_METADATA_HOST", server.address)
    monkeypatch.setattr(services, "GCE_API", f"http://{server.address}")
    machine = {
        "cloud.provider": "gcp",
        "cloud.platform": "gcp_compute_engine",
        "cloud.account.id": "shop",
        "cloud.availability_zone": "europe-west3-a",
        "cloud.region": "europe-west3",
        "host.id": "42",
        "host.name": "vm-1",
        "host.type": "projects/7/machineTypes/n2-standard-2",
    }
    assert await detected("gce") == machine
    labelled = await detected("gcp", gcp={"labels": ["^team$"]})
    assert labelled == machine | {"gcp.gce.instance.labels.team": "search"}
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert await detected("gke") == {
        "cloud.provider": "gcp",
        "cloud.platform": "gcp_kubernetes_engine",
        "cloud.account.id": "shop",
        "cloud.region": "europe-west3",
        "k8s.cluster.name": "prod",
        "host.id": "42",
        "host.name": "vm-1",
    }
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    monkeypatch.setenv("K_SERVICE", "web")
    monkeypatch.setenv("K_REVISION", "web-1")
    found = await detected("gcp")
    assert (found["cloud.platform"], found["faas.name"], found["faas.version"]) == ("gcp_cloud_run", "web", "web-1")


AZURE = {
    "location": "westeurope",
    "name": "vm-1",
    "vmId": "id-1",
    "vmSize": "Standard_D2s_v5",
    "subscriptionId": "sub",
    "resourceGroupName": "MC_group_cluster_westeurope",
    "vmScaleSetName": "",
    "osProfile": {"computerName": "computer-1"},
    "tagsList": [{"name": "team", "value": "search"}, {"name": "x", "value": "y"}],
}


async def test_azure_and_aks(stand_in, monkeypatch):
    """A virtual machine with the tags that match; in a pod, the cluster from the name of the resource group."""
    server = await stand_in({("GET", "/metadata/instance/compute"): ({"Metadata": "True"}, AZURE)})
    monkeypatch.setattr(services, "AZURE_ENDPOINT", f"http://{server.address}")
    assert await detected("azure", azure={"tags": ["team"]}) == {
        "cloud.provider": "azure",
        "cloud.platform": "azure.vm",
        "cloud.region": "westeurope",
        "cloud.account.id": "sub",
        "host.id": "id-1",
        "host.name": "computer-1",
        "azure.vm.name": "vm-1",
        "azure.vm.size": "Standard_D2s_v5",
        "azure.resourcegroup.name": "MC_group_cluster_westeurope",
        "azure.tag.team": "search",
    }
    assert await detected("aks") == {}
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    found = await detected("aks", aks={"resource_attributes": {"k8s.cluster.name": {"enabled": True}}})
    assert found["k8s.cluster.name"] == "cluster"


async def test_docker(stand_in, tmp_path, monkeypatch):
    """The host from the daemon, over its socket; the container if it is enabled."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setattr(socket, "gethostname", lambda: "c0ffee")
    container = {"Name": "/gateway", "Config": {"Image": "tailrace:1"}}
    await stand_in(
        {
            ("GET", "/info"): ({}, {"Name": "machine-1", "OSType": "Linux"}),
            ("GET", "/containers/c0ffee/json"): ({}, container),
        },
        unix=path,
    )
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    assert await detected("docker") == {"host.name": "machine-1", "os.type": "linux"}
    switches = {name: {"enabled": True} for name in ("container.name", "container.image.name")}
    found = await detected("docker", docker={"resource_attributes": switches})
    assert (found["container.name"], found["container.image.name"]) == ("gateway", "tailrace:1")


@pytest.mark.parametrize("name", ["k8s_api", "k8snode"])
async def test_kubernetes(stand_in, authority, monkeypatch, name):
    """Node and cluster; without the right to read the cluster's namespace, the node alone."""
    bearer = {"Authorization": "Bearer t0ken"}
    answers = {
        ("GET", "/api/v1/nodes/node-1"): (bearer, {"metadata": {"uid": "n1"}}),
        ("GET", "/api/v1/namespaces/kube-system"): (bearer, {"metadata": {"uid": "c1"}}),
    }
    api = await stand_in(answers, tls=authority.tls)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", api.host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    monkeypatch.setenv("NODE", "node-1")
    monkeypatch.setattr(services, "SERVICE_ACCOUNT", authority.folder)
    node = {"k8s.node.name": "node-1", "k8s.node.uid": "n1"}
    assert await detected(name, **{name: {"node_from_env_var": "NODE"}}) == node | {"k8s.cluster.uid": "c1"}
    del answers["GET", "/api/v1/namespaces/kube-system"]
    assert await detected(name, **{name: {"node_from_env_var": "NODE"}}) == node


async def test_lambda_and_heroku(monkeypatch):
    """From the environment of the function or the dyno."""
    assert await detected("lambda", "heroku") == {}
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "resize")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128")
    found = await detected("lambda")
    assert (found["faas.name"], found["faas.max_memory"]) == ("resize", 128 * 1024 * 1024)
    monkeypatch.setenv("HEROKU_APP_ID", "app-1")
    assert (await detected("heroku"))["heroku.app.id"] == "app-1"


async def test_gpu(monkeypatch):
    """Count and models; nothing on a machine without a driver."""

    class Backend:
        def open(self, now):
            return [Device("GPU-1", "0", model="H200"), Device("GPU-2", "1", model="H200")]

        def close(self):
            pass

    class Missing(Backend):
        def open(self, now):
            raise BackendUnavailableError("no_driver", "there is no driver")

    monkeypatch.setattr(local, "NvmlBackend", Backend)
    assert await detected("gpu") == {"host.gpu.count": 2, "host.gpu.models": ["H200"]}
    monkeypatch.setattr(local, "NvmlBackend", Missing)
    assert await detected("gpu") == {}


async def test_other_machines_have_no_cloud():
    """That is not a failure, unless it is configured."""
    telemetry = RecordingTelemetry()
    processor = await started(telemetry, detectors=["ec2", "gcp", "azure", "aks", "eks"], timeout="2s")
    assert processor._attributes == {}
    assert not telemetry.log.of_level("warning")
    await processor.shutdown()
    processor = await started(telemetry, detectors=["ec2"], timeout="2s", ec2={"fail_on_missing_metadata": True})
    assert len(telemetry.log.of_level("warning")) == 1
    await processor.shutdown()


async def test_a_detector_that_fails_is_tried_again(stand_in, tmp_path, monkeypatch):
    """The service starts without its attributes and gets them later."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=1")
    telemetry, clock = RecordingTelemetry(), FakeClock()
    processor = await started(telemetry, clock, detectors=["docker", "env"])
    assert processor._attributes == {"a": "1"}
    assert telemetry.log.of_level("warning")[0].fields["detector"] == "docker"
    await stand_in({("GET", "/info"): ({}, {"Name": "machine-1", "OSType": "linux"})}, unix=path)
    async with processor._repeating.lock:
        await processor._repeat()
    assert processor._attributes == {"host.name": "machine-1", "os.type": "linux", "a": "1"}
    await processor.shutdown()


@pytest.mark.parametrize("body", ["not json", "[1]", "x" * (5 << 20)])
async def test_a_strange_answer_is_a_failure(stand_in, tmp_path, monkeypatch, body):
    """Neither wrong JSON nor a huge answer does harm."""
    path = str(tmp_path / "docker.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    await stand_in({("GET", "/info"): ({}, body)}, unix=path)
    telemetry = RecordingTelemetry()
    processor = await started(telemetry, detectors=["docker"])
    assert processor._attributes == {}
    assert len(telemetry.log.of_level("warning")) == 1
    await processor.shutdown()


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("override", [True, False])
async def test_resources_get_the_attributes(monkeypatch, signal, override):
    """Existing values are replaced or kept; the first detector that has an attribute counts."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node-7")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=detected,host.name=from-env,os.type=from-env")
    processor = await started(
        signal=signal, detectors=["env", "system"], override=override, system={"hostname_sources": ["os"]}
    )
    batch = make_batch(signal)
    out = processor.transform(batch)
    count = batch.table("resources").row_count
    assert out.item_count == batch.item_count
    assert out.attribute("os.type", "resources").text.to_list() == ["from-env"] * count
    hosts, hosts_before = (each.attribute("host.name", "resources").text.to_list() for each in (out, batch))
    assert hosts == (["from-env"] * count if override else [host or "from-env" for host in hosts_before])
    names = out.attribute("service.name", "resources").text.to_list()
    before = batch.attribute("service.name", "resources").text.to_list()
    assert names == (["detected"] * count if override else before)
    await processor.shutdown()


async def test_only_the_listed_attributes_are_added(monkeypatch):
    """``attributes`` is the list of all that may be added."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=1,b=2")
    assert await detected("env", attributes=["b"]) == {"b": "2"}


async def test_pipelines_share_one_detection(monkeypatch):
    """The second object of the same id does not ask again."""
    calls = []
    monkeypatch.setattr(socket, "gethostname", lambda: calls.append(1) or "node-7")
    settings = make_settings(factory, signals={Signal.TRACES})
    options = {"detectors": ["system"], "system": {"hostname_sources": ["os"]}}
    first = await started(settings=settings, **options)
    second = await started(settings=settings, **options)
    assert first._attributes == second._attributes != {}
    assert len(calls) == 1
    for processor in (first, second):
        await processor.shutdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"detectors": ["consul"]},
            "the detector 'consul' is part of the Collector, but Tailrace does not have it yet",
        ),
        ({"detectors": ["sytem"]}, "'sytem' is not a detector; expected some of aks, azure"),
        ({"system": {"resource_attributes": {"host.nam": {"enabled": True}}}}, "'host.nam' is not an attribute"),
        ({"ec2": {"tags": ["("]}}, "invalid pattern"),
        ({"system": {"hostname_sources": ["x"]}}, "'dns', 'os', 'cname' or 'lookup'"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    """Each message says what is expected."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)


def test_the_environment_is_not_needed():
    """The variables of this test are not those of the machine."""
    assert not any(name in os.environ for name in VARIABLES)
