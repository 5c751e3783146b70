"""Holds rendered manifests against what crier needs of a cluster.

manifests.py CRIER FILE            prints what is wrong, if anything is
manifests.py --broken CRIER FILE   breaks each rule on purpose; prints what was not noticed
"""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

SERVICES = {"worker", "reconciler", "ingest"}
SENDING = {"worker", "reconciler"}


def pods(objects):
    """Each (component, pod spec)."""
    for thing in objects:
        template = thing.get("spec", {}).get("template")
        if template:
            yield template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"]


def only(objects, kind, name=None):
    return [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]


def settings_wrong(crier, objects, spec):
    """What `crier config` says to the pod's settings, with a file for each of the pod's secrets."""
    (container,) = spec["containers"]
    (config,) = (v["configMap"]["name"] for v in spec["volumes"] if v["name"] == "config")
    (items,) = (v["secret"]["items"] for v in spec["volumes"] if v["name"] == "secrets")
    (data,) = (o["data"] for o in only(objects, "ConfigMap", config))
    examples = {"ledger-url": "postgres://crier@db/crier", "queue-url": "redis://redis:6379"}
    with tempfile.TemporaryDirectory() as place:
        place = pathlib.Path(place)
        for item in items:
            (place / item["path"]).write_text(examples.get(item["key"], "secret"))
        moved = {"/run/secrets/crier": str(place), "/etc/crier/crier.toml": str(place / "crier.toml")}

        def here(text):
            for before, after in moved.items():
                text = text.replace(before, after)
            return text

        (place / "crier.toml").write_text(here(data["crier.toml"]))
        environment = {e["name"]: here(e["value"]) for e in container["env"]}
        run = subprocess.run([crier, "config", "--json"], env=environment, cwd=place, capture_output=True, text=True)
        if run.returncode != 0:
            return {}, run.stderr.strip()
        return {entry["key"]: entry["value"] for entry in json.loads(run.stdout)}, None


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


def wrong(crier, objects):
    """One line for each thing that is not as it must be."""
    found = []
    components = {component for component, _ in pods(objects)}
    if not components >= SERVICES:
        found.append(f"there are {sorted(components)} only")
    for component, spec in pods(objects):
        (container,) = spec["containers"]

        def say(what):
            found.append(f"{component}: {what}")

        settings, refused = settings_wrong(crier, objects, spec)
        if refused:
            say(f"crier refuses its settings: {refused}")
            continue
        if spec.get("enableServiceLinks") is not False:
            say("service links would be taken for settings")
        if spec.get("automountServiceAccountToken") is not False:
            say("gets a token of the cluster's API")
        if spec["terminationGracePeriodSeconds"] <= seconds(settings["gateway.send_timeout"]) + 30 and component in SERVICES:
            say("a request in flight may outlast the grace period")
        if container["args"][0] != component:
            say(f"runs {container['args']}")
        gateway = [e["name"] for e in container["env"] if "GATEWAY" in e["name"]]
        if bool(gateway) != (component in SENDING):
            say(f"has the gateway's credentials {gateway}")
        if component in SERVICES:
            if not settings["metrics.listen"].startswith("0.0.0.0:"):
                say(f"probes can't reach {settings['metrics.listen']}")
            if [p["containerPort"] for p in container.get("ports", [])] != [int(settings["metrics.listen"].split(":")[1])]:
                say("the port is not the one it listens on")
            for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz")):
                if container.get(probe, {}).get("httpGet", {}).get("path") != path:
                    say(f"{probe} does not ask {path}")
        if settings["queue.url"].startswith("memory"):
            say("shares no queue")
        embedded = settings["ledger.url"].startswith("sqlite:")
        shared = [v for v in spec["volumes"] if "persistentVolumeClaim" in v]
        if embedded and not (shared and spec.get("affinity", {}).get("podAffinity")):
            say("does not share the ledger's file on one node")
    if [o["spec"]["replicas"] for o in only(objects, "Deployment", "crier-reconciler")] != [1]:
        found.append("there is not one reconciler")
    for thing in objects:
        if thing["kind"] != "Namespace" and thing["metadata"].get("namespace") != "crier":
            found.append(f"{thing['kind']} {thing['metadata']['name']} is in another namespace")
    ours = {"app.kubernetes.io/name": "crier"}
    policies = only(objects, "NetworkPolicy")
    if not any(
        p["spec"]["podSelector"] == {"matchLabels": ours}
        and sorted(p["spec"]["policyTypes"]) == ["Egress", "Ingress"]
        and not p["spec"].get("ingress")
        and not p["spec"].get("egress")
        for p in policies
    ):
        found.append("nothing denies by default")
    to_gateway = [p for p in policies if any(port["port"] == 443 for e in p["spec"].get("egress", []) for port in e["ports"])]
    for policy in to_gateway:
        expressions = policy["spec"]["podSelector"].get("matchExpressions", [])
        if not any(set(e["values"]) == SENDING for e in expressions):
            found.append(f"{policy['metadata']['name']} lets more than worker and reconciler reach the gateway")
    if not to_gateway:
        found.append("nobody reaches the gateway")
    return found


def of(objects, component):
    return next(spec for name, spec in pods(objects) if name == component)


def broken_rules():
    """Each rule's breach, by name."""

    def change(component, how):
        return lambda objects: how(of(objects, component))

    def container(component, how):
        return lambda objects: how(of(objects, component)["containers"][0])

    def config(before, after):
        def how(objects):
            (data,) = (o["data"] for o in only(objects, "ConfigMap"))
            assert before in data["crier.toml"], before
            data["crier.toml"] = data["crier.toml"].replace(before, after)

        return how

    return {
        "service links": change("worker", lambda s: s.pop("enableServiceLinks")),
        "API token": change("ingest", lambda s: s.pop("automountServiceAccountToken")),
        "grace period": change("reconciler", lambda s: s.update(terminationGracePeriodSeconds=90)),
        "command": container("worker", lambda c: c.update(args=["run"])),
        "credentials of ingest": container(
            "ingest", lambda c: c["env"].append({"name": "CRIER_GATEWAY__USERNAME", "value": "x"})
        ),
        "an unknown setting": container("worker", lambda c: c["env"].append({"name": "CRIER_WORKER__CONCURENCY", "value": "4"})),
        "a misspelt setting": config("url_file", "uri_file"),
        "loopback": config("0.0.0.0", "127.0.0.1"),
        "another port": config("9464", "9465"),
        "probe": container("worker", lambda c: c["livenessProbe"]["httpGet"].update(path="/readyz")),
        "two reconcilers": lambda o: only(o, "Deployment", "crier-reconciler")[0]["spec"].update(replicas=2),
        "namespace": lambda o: only(o, "Service")[0]["metadata"].pop("namespace"),
        "default deny": lambda o: o.remove(only(o, "NetworkPolicy", "crier")[0]),
        "ingest to the gateway": lambda o: only(o, "NetworkPolicy", "crier-gateway")[0]["spec"].update(
            podSelector={"matchLabels": {}}
        ),
        "no way to the gateway": lambda o: o.remove(only(o, "NetworkPolicy", "crier-gateway")[0]),
    }


def main():
    broken = sys.argv[1] == "--broken"
    crier, file = sys.argv[-2:]
    with open(file) as rendered:
        objects = [o for o in yaml.safe_load_all(rendered) if o]
    crier = os.path.abspath(crier)
    if not broken:
        found = wrong(crier, objects)
    else:
        found = wrong(crier, objects)
        # Where something is wrong already, a breach proves nothing.
        for name, how in [] if found else broken_rules().items():
            changed = copy.deepcopy(objects)
            how(changed)
            if not wrong(crier, changed):
                found.append(f"not noticed: {name}")
    print("".join(f"{line}\n" for line in found), end="")
    sys.exit(bool(found))


main()
