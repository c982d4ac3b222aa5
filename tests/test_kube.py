"""The verbs with a simulated API server: what they request, what a failed wait says, and when a wait gives up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pytest

from fixtures.api import Api, ApiRefusal
from fixtures.fields import Fields
from fixtures.hopeless import missing_image
from fixtures.in_brief import state_of
from fixtures.inconclusive import Inconclusive, NotObserved
from fixtures.kube import Kube, forget_reads, lagging, last_read
from fixtures.patience import Patience
from runner import evidence
from runner.evidence import refusal_by_pod_security

Object = dict[str, Any]

CLAIM = {"name": "data", "persistentVolumeClaim": {"claimName": "score"}}
UNSCHEDULABLE = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
READY = {"conditions": [{"type": "Ready", "status": "True"}]}


def waits(reason: str, image: str = "nginx:1") -> Object:
    """The status of a Pod whose container waits for this reason."""
    state = {"waiting": {"reason": reason, "message": "no such thing"}}
    return {"containerStatuses": [{"name": "c", "image": image, "state": state}]}


def pod(name: str, status: Object, **meta: Any) -> Object:
    meta = {"name": name, "uid": name, "resourceVersion": "1", "labels": {"app": "web"}} | meta
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"nodeName": "worker"},
        "status": {"phase": "Pending"} | status,
    }


def event(reason: str, count: int, about: str, message: str = "", kind: str = "Pod") -> Object:
    who = {"kind": kind, "name": about, "uid": about, "apiVersion": "v1" if kind == "Pod" else "apps/v1"}
    return {"metadata": {"name": reason}, "reason": reason, "count": count, "involvedObject": who, "message": message}


class SimulatedServer:
    """An API server's answers, by path. Records the requests, and counts how often a kind was looked up."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Mapping[str, Any]], Any]] = {}
        self.asked: list[str] = []
        self.looked_up: list[str] = []

    def resource(self, kind: str) -> Any:
        """Like Api.resource; all kinds but one are namespaced."""
        self.looked_up.append(kind)
        name = kind.rpartition("/")[2]

        class Resource:
            namespaced = name != "StorageClass"

            @staticmethod
            def path(name: str | None, namespace: str | None, kind: str = name) -> str:
                return f"{kind}/{name}" if name else kind

        return Resource

    def call(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None, *_: Any) -> Any:
        """Like Api.call; every write succeeds, and a GET without an answer is 404."""
        self.asked.append(f"{method} {path}")
        if method != "GET":
            return body
        if path not in self.answers:
            raise ApiRefusal(f"GET {path}", 404, '{"reason": "NotFound"}')
        return self.answers[path](query or {})

    def lists(self, kind: str, items: Callable[[], list[Object]]) -> None:
        """Set the objects of a kind."""
        self.answers[kind] = lambda _: {"apiVersion": "v1", "kind": f"{kind}List", "items": items()}


class Clock:
    """Time that passes only during a sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """As time's."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """As time's, at once."""
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces the time, and resets the budgets."""
    clock = Clock()
    monkeypatch.setattr("time.monotonic", clock.monotonic)
    monkeypatch.setattr("tenacity.nap.time.sleep", clock.sleep)
    patience = Patience()
    for module in ("hopeless", "kube", "waiting"):
        monkeypatch.setattr(f"fixtures.{module}.patience", patience)
    return clock


@pytest.fixture
def server() -> SimulatedServer:
    """A simulated API server without Pods and Events."""
    server = SimulatedServer()
    server.lists("Pod", list)
    server.lists("Event", list)
    return server


@pytest.fixture
def kube(server: SimulatedServer) -> Kube:
    """The verbs, connected to the simulated API server."""
    return Kube(cast(Api, server), "ns", {"kubehave/run": "1"})


# --- what they request


@pytest.mark.parametrize("verb", ["create", "apply"])
def test_a_kind_is_looked_up_once_for_each_object(kube: Kube, server: SimulatedServer, verb: str) -> None:
    manifest = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fast"}}

    made = getattr(kube, verb)(manifest)

    assert server.looked_up == ["storage.k8s.io/v1/StorageClass"]
    assert made.metadata.labels == {"kubehave/run": "1"}
    assert "labels" not in manifest["metadata"]


def test_create_takes_one_object(kube: Kube) -> None:
    with pytest.raises(ValueError, match="2 objects; create takes one"):
        kube.create("deployments/without-downtime.yaml")


# --- what was read last


def test_without_a_read_last_read_is_empty() -> None:
    forget_reads()

    assert last_read() == ""


def test_last_read_has_the_object_with_its_status(kube: Kube, server: SimulatedServer) -> None:
    status = {"replicas": 2, "conditions": [{"type": "Available", "status": "False", "reason": "TooFew"}]}
    server.answers["Deployment/web"] = lambda _: {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "status": status,
    }

    kube.get("Deployment", "web")

    assert last_read() == "Deployment web (Available=False (TooFew), replicas=2)"


def test_last_read_has_the_list_with_the_state_of_its_pods(kube: Kube, server: SimulatedServer) -> None:
    server.lists("Pod", lambda: [pod("b", waits("CrashLoopBackOff")), pod("a", READY)])

    kube.pods(app="web")

    assert last_read() == "2 Pods app=web: a is Pending, Ready; b is Pending: CrashLoopBackOff"


def test_last_read_has_some_objects_of_a_long_list(kube: Kube, server: SimulatedServer) -> None:
    server.lists("Pod", lambda: [pod(f"p{number}", READY) for number in range(9)])

    kube.list("Pod")

    assert last_read().startswith("9 Pods: p0 is Pending, Ready; p1 ")
    assert last_read().endswith("p3 is Pending, Ready; and 5 more")


def test_last_read_names_an_absent_object(kube: Kube) -> None:
    kube.list("Pod", app="web")
    assert last_read() == "no Pod app=web"

    assert not kube.exists("Service", "web")
    assert last_read() == "no Service web"


def test_last_read_ignores_reads_aside(kube: Kube) -> None:
    kube.list("Pod", app="web")
    kube.aside().list("Event")

    assert last_read() == "no Pod app=web"


# --- what a failed wait says


@pytest.mark.parametrize(
    ("spec", "status", "said"),
    [
        ({}, {"conditions": [UNSCHEDULABLE]}, "Pending: Unschedulable"),
        ({"nodeName": "worker"}, waits("ErrImagePull"), "Pending: ErrImagePull"),
        ({"nodeName": "worker"}, {}, "Pending: no reason given"),
        ({}, {}, "Pending: waiting for a node"),
        (
            {"volumes": [CLAIM, {"name": "tmp", "emptyDir": {}}]},
            {},
            "Pending: waiting for a node, or for a volume for score",
        ),
        ({"nodeName": "worker"}, READY, "Pending, Ready"),
    ],
)
def test_a_pod_that_is_not_ready_says_why(spec: Any, status: Any, said: str) -> None:
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec}

    assert state_of(Fields.of(whole | {"status": {"phase": "Pending"} | status})) == f"web is {said}"


@pytest.mark.parametrize(
    ("kind", "spec", "status", "lacks"),
    [
        ("Deployment", {"replicas": 2}, {"observedGeneration": 1}, "its controller has seen generation 1, but not 2"),
        (
            "Deployment",
            {"replicas": 2},
            {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 2},
            "3 of 2 Pods are there, 0 of 2 Pods are available",
        ),
        ("Deployment", {"replicas": 0}, {"observedGeneration": 2}, ""),
        (
            "StatefulSet",
            {"replicas": 1},
            {"observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1},
            "",
        ),
        ("ReplicaSet", {"replicas": 1}, {"observedGeneration": 2, "replicas": 1}, "0 of 1 Pods are available"),
        ("DaemonSet", {}, {"observedGeneration": 2, "desiredNumberScheduled": 0}, "it has no node to run on"),
        (
            "DaemonSet",
            {},
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "currentNumberScheduled": 2,
                "updatedNumberScheduled": 2,
                "numberAvailable": 1,
            },
            "1 of 2 Pods are available",
        ),
    ],
)
def test_a_workload_says_what_it_lacks(kind: str, spec: Object, status: Object, lacks: str) -> None:
    whole = {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": "web", "generation": 2}}

    assert lagging(Fields.of(whole | {"spec": spec, "status": status})) == lacks


# --- when it gives up


def ended(clock: Clock, wait: Callable[[], object], with_: type[Exception]) -> tuple[str, float]:
    """The message with which a wait ended, and after how many seconds."""
    began = clock.now
    with pytest.raises(with_) as failure:
        wait()
    assert failure.type is with_
    return str(failure.value), clock.now - began


def test_a_pod_that_becomes_ready_in_time_is_awaited(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    began = clock.now
    server.lists("Pod", lambda: [pod("web", READY if clock.now > began + 30 else waits("ErrImagePull"))])
    server.lists("Event", lambda: [event("Pulling", 1, "web")])

    assert [it.metadata.name for it in kube.ready_pods(1, app="web")] == ["web"]


def test_an_image_whose_second_pull_fails_is_inconclusive(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    began = clock.now
    server.lists("Pod", lambda: [pod("web", waits("ErrImagePull" if clock.now < began + 1 else "ImagePullBackOff"))])
    server.lists("Event", lambda: [event("Pulling", 1 if clock.now < began + 12 else 2, "web")])

    message, seconds = ended(clock, lambda: kube.ready_pods(1, app="web"), Inconclusive)

    assert message == (
        "the image nginx:1 cannot be pulled on node worker (ImagePullBackOff); "
        "put it there or give the cluster a registry: ./verify --list-images"
    )
    assert 14 < seconds < 18


def test_an_image_that_is_missing_at_the_last_look_is_inconclusive(
    kube: Kube, server: SimulatedServer, clock: Clock
) -> None:
    server.answers["Pod/web"] = lambda _: pod("web", waits("ErrImageNeverPull"))

    message, seconds = ended(clock, lambda: kube.ready_pod("web"), Inconclusive)

    assert "the image nginx:1 cannot be pulled on node worker" in message
    assert seconds == pytest.approx(60, abs=0.5)


def test_a_missing_image_has_a_remedy_unless_it_exists_nowhere() -> None:
    nowhere = Fields.of(pod("a", waits("ErrImagePull", "localhost/no-such-image:1.0")))

    assert missing_image([nowhere, Fields.of(pod("b", READY))]) is None
    assert missing_image([nowhere, Fields.of(pod("c", waits("ErrImageNeverPull")))]) == (
        "the image nginx:1 cannot be pulled on node worker (ErrImageNeverPull); "
        "put it there or give the cluster a registry: ./verify --list-images"
    )


def test_a_terminating_pod_ends_no_wait(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    began = clock.now
    old = pod("old", waits("ImagePullBackOff"), deletionTimestamp="2026-01-01T00:00:00Z")
    server.lists("Pod", lambda: [old, pod("new", READY if clock.now > began + 30 else {})])
    server.lists("Event", lambda: [event("Pulling", int(clock.now - began), "old")])

    assert [it.metadata.name for it in kube.ready_pods(1, app="web")] == ["new"]


@pytest.mark.parametrize("reason", ["CreateContainerConfigError", "InvalidImageName"])
def test_a_container_that_cannot_be_created_ends_the_wait(
    kube: Kube, server: SimulatedServer, clock: Clock, reason: str
) -> None:
    began = clock.now
    server.answers["Pod/web"] = lambda _: pod("web", waits(reason))
    server.lists("Event", lambda: [event("Failed", 1 if clock.now < began + 12 else 2, "web")])

    message, seconds = ended(clock, lambda: kube.ready_pod("web"), AssertionError)

    assert message == f"container c of Pod web cannot be created: {reason}, no such thing"
    assert 14 < seconds < 18


def replicaset(labels: Mapping[str, str]) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "web", "uid": "web", "resourceVersion": "1"},
        "spec": {"template": {"metadata": {"labels": dict(labels)}}},
    }


def refuse(server: SimulatedServer, tries: Callable[[], int], message: str, **labels: str) -> None:
    server.answers["ReplicaSet/web"] = lambda _: replicaset(labels)
    server.lists("Event", lambda: [event("FailedCreate", tries(), "web", message, "ReplicaSet")])


def test_pods_that_are_refused_again_end_the_wait(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    began = clock.now
    refuse(server, lambda: int(clock.now - began), "exceeded quota", app="web", tier="front")

    message, seconds = ended(clock, lambda: kube.ready_pods(1, app="web"), AssertionError)

    assert message.startswith("ReplicaSet web cannot create its Pods, after ")
    assert message.endswith(" tries: exceeded quota")
    assert 5 < seconds < 8


@pytest.mark.parametrize(("labels", "tries"), [({"app": "other"}, 9), ({"app": "web"}, 3)])
def test_refusals_of_other_pods_and_past_refusals_do_not_end_the_wait(
    kube: Kube, server: SimulatedServer, clock: Clock, labels: dict[str, str], tries: int
) -> None:
    began = clock.now
    server.lists("Pod", lambda: [pod("web", READY if clock.now > began + 20 else {})])
    refuse(server, lambda: min(tries, int(clock.now - began)), "exceeded quota", **labels)

    assert len(kube.ready_pods(1, app="web")) == 1


def test_pods_that_pod_security_refuses_are_not_observed(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    why = 'pods "web-x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
    refuse(server, lambda: 4, why, app="web")

    message, seconds = ended(clock, lambda: kube.ready_pods(1, app="web"), NotObserved)

    assert message == "refused by Pod Security restricted: the Pods of ReplicaSet web"
    assert seconds < 3
    assert refusal_by_pod_security(kube) == why


def test_a_wait_ends_if_nothing_happens(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    message, seconds = ended(clock, lambda: kube.ready_pods(2, app="web"), AssertionError)
    assert message == "there are 0 Pods, not 2: nothing at all has happened for 45 s, and there is no Pod"
    assert 45 <= seconds < 49

    server.lists("Pod", lambda: [pod("web", READY)])
    message, _ = ended(clock, lambda: kube.ready_pods(2, app="web"), AssertionError)
    assert message.endswith("nothing at all has happened for 45 s, and all Pods that there are (1) are Ready")


@pytest.mark.parametrize(
    "busy",
    [pod("web", {}), pod("web", READY, deletionTimestamp="2026-01-01T00:00:00Z")],
    ids=["unready", "terminating"],
)
def test_a_wait_lasts_while_a_pod_is_unready_or_terminating(
    kube: Kube, server: SimulatedServer, clock: Clock, busy: Object
) -> None:
    server.lists("Pod", lambda: [busy])

    message, seconds = ended(clock, lambda: kube.ready_pods(2, app="web"), AssertionError)

    assert "nothing at all" not in message
    assert seconds == pytest.approx(60, abs=0.5)


def deployment(version: int, available: int) -> Object:
    whole = replicaset({"app": "web"}) | {"kind": "Deployment"}
    whole["metadata"] |= {"generation": 1, "resourceVersion": str(version)}
    whole["spec"]["replicas"] = 2
    numbers = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": available}
    return whole | {"status": {"observedGeneration": 1} | numbers}


def test_a_rollout_is_awaited_while_it_makes_progress(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    began = clock.now
    server.answers["Deployment/web"] = lambda _: deployment(int(clock.now) // 20, 2 if clock.now > began + 100 else 1)

    assert kube.rolled_out("Deployment", "web").status.availableReplicas == 2
    assert 100 < clock.now - began < 101


def test_a_rollout_that_does_not_start_ends_the_wait(kube: Kube, server: SimulatedServer, clock: Clock) -> None:
    server.answers["Deployment/web"] = lambda _: deployment(1, 0)

    message, seconds = ended(clock, lambda: kube.rolled_out("Deployment", "web"), AssertionError)

    assert message == (
        "Deployment web: 0 of 2 Pods are available: nothing at all has happened for 45 s, and there is no Pod"
    )
    assert 45 <= seconds < 49


def test_the_end_of_a_tests_time_ends_the_evidence_and_not_the_run(kube: Kube, server: SimulatedServer) -> None:
    def stop(_: object) -> None:
        pytest.fail("Timeout >360.0s")

    server.answers["Pod"] = stop

    assert evidence.of(kube)[1:] == ["  (no more evidence: Timeout >360.0s)"]
