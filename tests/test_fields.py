"""A misspelled field is an error, and is never taken for an absent one."""

from decimal import Decimal

import pytest

from fixtures.fields import Fields, misspelled, plain, quantity

DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:1.22.1"}]}}},
    "status": {"readyReplicas": 3},
}


def test_fields_read_like_the_manifest() -> None:
    deployment = Fields.of(DEPLOYMENT)

    assert deployment.status.readyReplicas == 3
    assert deployment.metadata.labels["app"] == "web"
    assert [container.image for container in deployment.spec.template.spec.containers] == ["nginx:1.22.1"]


def test_absent_fields_are_empty() -> None:
    deployment = Fields.of(DEPLOYMENT)

    assert deployment.status.availableReplicas is None
    assert deployment.status.conditions == []
    assert deployment.metadata.annotations == {}
    assert not deployment.spec.strategy.rollingUpdate


@pytest.mark.parametrize(
    "path", ["spec.replcas", "status.readyReplica", "metadata.label", "spec.template.spec.container"]
)
def test_a_misspelled_attribute_raises_and_names_the_right_one(path: str) -> None:
    with pytest.raises(AttributeError, match=r"no such field; did you mean \w+\?"):
        thing = Fields.of(DEPLOYMENT)
        for name in path.split("."):
            thing = getattr(thing, name)


def test_an_object_is_not_a_list() -> None:
    with pytest.raises(TypeError, match="not a list"):
        list(Fields.of(DEPLOYMENT).metadata)


def test_a_custom_resource_has_no_schema_so_absence_is_an_error() -> None:
    proxy = Fields.of({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"size": 3}})

    assert proxy.spec.size == 3
    with pytest.raises(AttributeError, match="without a schema"):
        _ = proxy.spec.color


def test_plain_returns_what_the_server_sent() -> None:
    assert plain(Fields.of(DEPLOYMENT)) is DEPLOYMENT
    assert plain(Fields.of(DEPLOYMENT).spec.template.spec.containers) == [{"name": "web", "image": "nginx:1.22.1"}]


def test_misspelled_finds_fields_at_any_depth() -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"any": "key"}},
        "spec": {"externalTrafficPilicy": "Local", "ports": [{"port": 80}, {"port": 81, "targetport": 8080}]},
    }

    found = {".".join(map(str, path)): why for path, why in misspelled(manifest)}

    assert found == {
        "spec.externalTrafficPilicy": "no such field; did you mean externalTrafficPolicy?",
        "spec.ports.1.targetport": "no such field; did you mean targetPort?",
    }


@pytest.mark.parametrize(("text", "number"), [("500m", "0.5"), ("1Ki", "1024"), ("3", "3")])
def test_a_quantity_is_a_number(text: str, number: str) -> None:
    assert quantity(text) == Decimal(number)
