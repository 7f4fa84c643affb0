"""A Kubernetes cluster of one node on this very machine, for the tests of `kubernetes`.

    python3 tests/live/cluster.py build     fetch Debian's source and build it: half an hour, once
    python3 tests/live/cluster.py start     bring it up; prints the KUBECONFIG
    python3 tests/live/cluster.py stop      end it, and put back what the kubelet changed
    python3 tests/live/cluster.py status

Debian bookworm has no server of Kubernetes as a binary, and no package archive has another; its
*source* package still holds the whole server. Everything lies below ISOBENCH_KUBERNETES (default
/opt/isobench-kubernetes), outside the checkout. Needs root, and

    apt-get install golang-go rsync make gcc dpkg-dev etcd-server containerd runc \
        containernetworking-plugins openssl iproute2

It listens on addresses of this machine alone: the loopback's, and one more that it puts on the
loopback while it runs. An engine that is already here is not touched: this containerd is another,
with a root, a state and a socket of its own.
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import platform
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

HOME: Final = Path(os.environ.get("ISOBENCH_KUBERNETES") or "/opt/isobench-kubernetes")
BIN, RUN = HOME / "bin", HOME / "run"
VERSION: Final = "v1.20.2"
PROGRAMS: Final = ("kube-apiserver", "kube-scheduler", "kubelet")
TOOLS: Final = ("etcd", "containerd", "ctr", "runc", "openssl", "ip")
ADDRESS: Final = "10.99.77.1"
PODS: Final = "10.99.78.0/24"
API, ETCD, PEER = 17443, 17379, 17380
NODE: Final = "isobench-node"
SYSCTLS: Final = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
LOGS: Final = (Path("/var/log/pods"), Path("/var/log/containers"))
SHARED: Final = (
    *("/run/containerd/runc/k8s.io", "/run/containerd/runc", "/run/containerd/s"),
    *("/run/containerd", "/var/lib/cni/results", "/var/lib/cni"),
)
"""Folders that every containerd uses, to be removed where they are empty."""
PAUSE: Final = "localhost/isobench-test/pause:1"
CTR: Final = ("ctr", "--address", str(RUN / "containerd.sock"), "--namespace", "k8s.io")


# ---- building ------------------------------------------------------------------------------------


def lacking() -> str:
    """Return why there is no cluster to start, or nothing."""
    if os.geteuid() != 0:
        return "a cluster on this machine needs root"
    if not all((BIN / name).is_file() for name in (*PROGRAMS, "pause")):
        return f"no Kubernetes is built in {HOME}: python3 tests/live/cluster.py build"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing or not Path("/usr/lib/cni/ptp").exists():
        return f"missing: {' '.join(missing) or 'containernetworking-plugins'}"
    return ""


def call(*words: str | Path, **more: Any) -> None:
    subprocess.run(words, check=True, **more)


def build() -> None:
    """Fetch and build, one compiler at a time and niced: whoever shares the machine should hardly
    notice.
    """
    for tool in ("go", "rsync", "make", "gcc", "dpkg-source"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing: apt-get install golang-go rsync make gcc dpkg-dev")
    work, apt = HOME / "build", HOME / "apt"
    for folder in (work / "tmp", BIN, apt / "lists" / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    # Lists of its own: the machine's package sources stay as they are.
    (apt / "sources.list").write_text("deb-src http://deb.debian.org/debian bookworm main\n")
    get = (
        "apt-get", "-o", f"Dir::Etc::sourcelist={apt / 'sources.list'}",
        "-o", "Dir::Etc::sourceparts=/dev/null", "-o", f"Dir::State::lists={apt / 'lists'}",
        "-o", "APT::Sandbox::User=root",
    )  # fmt: skip
    call(*get, "update")
    call(*get, "source", "--download-only", "kubernetes", cwd=work)
    shutil.rmtree(work / "source", ignore_errors=True)
    call("dpkg-source", "-x", "--no-check", *work.glob("kubernetes_*.dsc"), "source", cwd=work)
    (work / "version").write_text(
        "KUBE_GIT_COMMIT='debian'\nKUBE_GIT_TREE_STATE='clean'\n"
        f"KUBE_GIT_VERSION='{VERSION}'\nKUBE_GIT_MAJOR='1'\nKUBE_GIT_MINOR='20'\n"
    )
    places = {"GOCACHE": "cache", "GOPATH": "path", "GOTMPDIR": "tmp"}
    what = " ".join(f"cmd/{name}" for name in PROGRAMS)
    call(
        "nice", "-n", "19", "make", "all", "GOLDFLAGS=-s -w", f"WHAT={what}",
        cwd=work / "source",
        env={
            **os.environ, "KUBE_GIT_VERSION_FILE": str(work / "version"), "GOFLAGS": "-p=1",
            "GOPROXY": "off", "GO111MODULE": "auto", "GOMAXPROCS": "1",
            # All linked alike: else every package is compiled twice.
            "KUBE_STATIC_OVERRIDES": "kubelet",
            **{name: str(work / folder) for name, folder in places.items()},
        },
    )  # fmt: skip
    made = next((work / "source" / "_output" / "local" / "bin" / "linux").iterdir())
    for name in PROGRAMS:
        shutil.copy2(made / name, BIN / name)
    pause()
    call("chmod", "-R", "u+w", work)
    shutil.rmtree(work)
    shutil.rmtree(apt)


def pause() -> None:
    """Build what holds a pod's namespaces open."""
    source = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
    call("gcc", "-O2", "-static", "-x", "c", "-o", BIN / "pause", "-", input=source, text=True)


# ---- its parts -----------------------------------------------------------------------------------


def write(name: str, text: str, mode: int = 0o600) -> Path:
    path = RUN / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=mode)
    path.write_text(text)
    return path


def running(pid: int, began: str) -> bool:
    return started(pid) == began


def started(pid: int) -> str:
    """Return when a process started, in ticks: two of one number are told apart by it."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if stat[0] == "Z" else stat[19]


children: list[subprocess.Popen[bytes]] = []
"""The parts that this process has started; others may end them, or find them running."""


def spawn(name: str, *words: str | Path, **environment: str) -> None:
    """Start one part in a session of its own; note its number before anything else."""
    with (RUN / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, **environment},
        )  # fmt: skip
    children.append(process)
    write(f"pids/{name}", f"{process.pid} {started(process.pid)}")


def noted() -> dict[str, tuple[int, str]]:
    found = {}
    for path in (RUN / "pids").glob("*"):
        pid, _, began = path.read_text().partition(" ")
        if running(int(pid), began):
            found[path.name] = (int(pid), began)
    return found


def wait(what: str, done: Callable[[], bool], patience: float = 180) -> None:
    """Wait for a part; show the end of its log where it does not come."""
    deadline = time.monotonic() + patience
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            if done():
                return
        if time.monotonic() > deadline:
            logs = {
                path.stem: path.read_text(errors="replace")[-1500:] for path in RUN.glob("*.log")
            }
            raise RuntimeError(f"{what} does not come: {json.dumps(logs, indent=1)}")
        time.sleep(0.1)


def ask(
    method: str, path: str, body: Any = None, *, kind: str = "application/json", token: str = ""
) -> Any:
    """Ask the API as its administrator."""
    request = urllib.request.Request(
        f"https://127.0.0.1:{API}{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "Authorization": f"Bearer {token or (RUN / 'token').read_text()}",
            "Content-Type": kind,
        },
    )
    trust = ssl.create_default_context(cafile=str(RUN / "apiserver" / "apiserver.crt"))
    with urllib.request.urlopen(request, context=trust, timeout=10) as answer:  # noqa: S310
        said = answer.read()
    return json.loads(said) if said.startswith(b"{") else said.decode()


def kubeconfig(name: str, user: str, token: str) -> Path:
    """Write the kubeconfig of one user; what is secret stands in it as data, as kubeadm has it."""
    trust = base64.b64encode((RUN / "apiserver" / "apiserver.crt").read_bytes()).decode()
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [
            {
                "name": "test",
                "cluster": {
                    "server": f"https://127.0.0.1:{API}",
                    "certificate-authority-data": trust,
                },
            }
        ],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
    }
    return write(name, json.dumps(document))


def store() -> None:
    spawn(
        "etcd", "etcd", "--data-dir", RUN / "etcd", "--unsafe-no-fsync",
        "--listen-client-urls", f"http://127.0.0.1:{ETCD}",
        "--advertise-client-urls", f"http://127.0.0.1:{ETCD}",
        "--listen-peer-urls", f"http://127.0.0.1:{PEER}",
        "--initial-advertise-peer-urls", f"http://127.0.0.1:{PEER}",
        "--initial-cluster", f"default=http://127.0.0.1:{PEER}",
    )  # fmt: skip


def runtime() -> None:
    write(
        "containerd.toml",
        f"""version = 2
root = "{RUN / "containerd"}"
state = "{RUN / "state"}"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{RUN / "containerd.sock"}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_address = "127.0.0.1"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{RUN / "cni"}"
""",
    )
    network = {
        "cniVersion": "0.4.0",
        "name": "isobench-test",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(RUN / "addresses"),
                    "ranges": [[{"subnet": PODS}]],
                },
            }
        ],
    }
    write("cni/10-test.conflist", json.dumps(network))
    spawn("containerd", "containerd", "--config", RUN / "containerd.toml")


def server(tokens: dict[str, str]) -> None:
    groups = {"admin": "system:masters"}
    write(
        "tokens.csv",
        "".join(
            f'{token},{user},{user},"{groups.get(user, "")}"\n' for user, token in tokens.items()
        ),
    )
    write("token", tokens["admin"])
    call("openssl", "genrsa", "-out", RUN / "accounts.key", "2048", stderr=subprocess.DEVNULL)
    spawn(
        "kube-apiserver", BIN / "kube-apiserver",
        f"--etcd-servers=http://127.0.0.1:{ETCD}", "--bind-address=127.0.0.1",
        f"--secure-port={API}", "--insecure-port=0", "--advertise-address=127.0.0.1",
        f"--cert-dir={RUN / 'apiserver'}", f"--token-auth-file={RUN / 'tokens.csv'}",
        "--authorization-mode=RBAC", "--anonymous-auth=false",
        "--disable-admission-plugins=ServiceAccount,TaintNodesByCondition",
        "--kubelet-preferred-address-types=InternalIP", "--endpoint-reconciler-type=none",
        "--service-account-issuer=https://test.invalid", "--service-cluster-ip-range=10.99.79.0/24",
        f"--service-account-key-file={RUN / 'accounts.key'}",
        f"--service-account-signing-key-file={RUN / 'accounts.key'}",
    )  # fmt: skip


def scheduler(config: Path) -> None:
    spawn(
        "kube-scheduler", BIN / "kube-scheduler", f"--kubeconfig={config}", "--leader-elect=false",
        "--bind-address=127.0.0.1", "--port=0", "--secure-port=17259",
        f"--cert-dir={RUN / 'scheduler'}", f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}", "--authentication-tolerate-lookup-failure",
    )  # fmt: skip


def kubelet(config: Path) -> None:
    settings = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": 17248,
        "readOnlyPort": 0,
        # Whoever reaches this address is on this machine.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%"},
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "maxOpenFiles": 20000,
        "oomScoreAdj": 0,
        "volumePluginDir": str(RUN / "plugins"),
        "featureGates": {"DevicePlugins": False},
    }
    write("kubelet.json", json.dumps(settings))
    spawn(
        "kubelet", BIN / "kubelet", f"--config={RUN / 'kubelet.json'}", f"--kubeconfig={config}",
        f"--root-dir={RUN / 'kubelet'}", f"--cert-dir={RUN / 'kubelet-certificates'}",
        "--container-runtime=remote",
        f"--container-runtime-endpoint=unix://{RUN / 'containerd.sock'}",
        f"--hostname-override={NODE}", f"--node-ip={ADDRESS}",
    )  # fmt: skip


# ---- up and down ---------------------------------------------------------------------------------


def packed(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def load_pause() -> None:
    """Bring the image of every pod's first container there, made by hand: nothing can be pulled."""
    layer = packed({"pause": (BIN / "pause").read_bytes()}, 0o755)
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": ["/pause"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [PAUSE], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": json.dumps(config).encode()}
    archive = RUN / "pause.tar"
    archive.write_bytes(packed({**files, "manifest.json": json.dumps(manifest).encode()}))
    call(*CTR, "images", "import", archive, stdout=subprocess.DEVNULL)


def runs() -> bool:
    """Say whether all its parts run."""
    return set(noted()) >= {"etcd", "containerd", *PROGRAMS} and (RUN / "kubeconfig").exists()


def start() -> Path:
    """Bring the cluster up unless it is; return the administrator's kubeconfig."""
    if why := lacking():
        raise RuntimeError(why)
    config = RUN / "kubeconfig"
    if runs():
        return config
    if RUN.exists():
        stop()
    RUN.mkdir(mode=0o711)
    write("sysctls", json.dumps({name: Path("/proc/sys", name).read_text() for name in SYSCTLS}))
    write("folders", json.dumps([str(path) for path in LOGS if path.exists()]))
    try:
        said("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
        store()
        runtime()
        server({"admin": secrets.token_hex(16), "guest": (guest := secrets.token_hex(16))})
        wait("the API", lambda: ask("GET", "/readyz") == "ok")
        kubeconfig("kubeconfig", "admin", (RUN / "token").read_text())
        kubeconfig("kubeconfig-guest", "guest", guest)
        scheduler(config)
        wait("containerd", lambda: bool(said(*CTR, "version")))
        load_pause()
        kubelet(config)
        wait("the node", node_ready)
        # As kubeadm says of its nodes: here is the runtime.
        note = {"kubeadm.alpha.kubernetes.io/cri-socket": f"unix://{RUN / 'containerd.sock'}"}
        ask(
            "PATCH", f"/api/v1/nodes/{NODE}", {"metadata": {"annotations": note}},
            kind="application/merge-patch+json",
        )  # fmt: skip
    except BaseException:
        stop(keep_logs=True)
        raise
    return config


def node_ready() -> bool:
    conditions = ask("GET", f"/api/v1/nodes/{NODE}")["status"]["conditions"]
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def end(names: Sequence[str]) -> None:
    """End parts, politely at first."""
    for sign, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        alive = {name: one for name, one in noted().items() if name in names}
        for pid, _ in alive.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + patience
        while any(running(*one) for one in alive.values()) and time.monotonic() < deadline:
            time.sleep(0.05)


def said(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout.split()


def clear_containers() -> None:
    for task in said(*CTR, "tasks", "list", "-q"):
        said(*CTR, "tasks", "kill", "--signal", "SIGKILL", task)
    for _ in range(50):
        for task in (left := said(*CTR, "tasks", "list", "-q")):
            said(*CTR, "tasks", "delete", "--force", task)
        if not left:
            break
        time.sleep(0.1)
    for container in said(*CTR, "containers", "list", "-q"):
        said(*CTR, "containers", "delete", container)


def own_processes() -> list[int]:
    """Return the shims of this containerd: they name its socket or its folders."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"containerd-shim" in words[0] and any(str(RUN).encode() in word for word in words):
                found.append(int(path.parent.name))
    return found


def unmount() -> None:
    for _ in range(3):
        points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for point in reversed([point for point in points if point.startswith(f"{RUN}/")]):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def end_pods() -> None:
    """Have the kubelet take the pods away, networks and all."""
    if not {"kubelet", "kube-apiserver"} <= set(noted()):
        return
    with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError):
        for pod in ask("GET", "/api/v1/pods")["items"]:
            place = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods"
            ask("DELETE", f"{place}/{pod['metadata']['name']}", {"gracePeriodSeconds": 1})
        wait("the end of all pods", lambda: not ask("GET", "/api/v1/pods")["items"], 20)
        # The kubelet takes the pods' sandboxes away a moment after the pods.
        wait("the end of all tasks", lambda: not said(*CTR, "tasks", "list", "-q"), 15)


def put_back() -> None:
    """Undo what the kubelet and `start` have changed outside RUN."""
    for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        for folder in sorted((root / "k8s.io").glob("**/"), reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
    for name in SHARED:
        with contextlib.suppress(OSError):  # other engines may keep something there
            Path(name).rmdir()
    with contextlib.suppress(OSError, ValueError):
        for name, value in json.loads((RUN / "sysctls").read_text()).items():
            Path("/proc/sys", name).write_text(value)
        before = json.loads((RUN / "folders").read_text())
        for folder in LOGS:
            if str(folder) not in before:
                shutil.rmtree(folder, ignore_errors=True)
    said("ip", "address", "delete", f"{ADDRESS}/32", "dev", "lo")


def stop(*, keep_logs: bool = False) -> None:
    """End everything that `start` has started; put back what it and the kubelet have changed."""
    if not RUN.exists():
        return
    end_pods()
    end(["kubelet", "kube-scheduler", "kube-apiserver"])
    if "containerd" in noted():
        clear_containers()
    end(["containerd", "etcd"])
    for child in children:
        child.wait(10)
    children.clear()
    for pid in own_processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    unmount()
    put_back()
    if keep_logs:
        shutil.rmtree(HOME / "logs", ignore_errors=True)
        (HOME / "logs").mkdir()
        for log in RUN.glob("*.log"):
            shutil.copy(log, HOME / "logs")
    shutil.rmtree(RUN, ignore_errors=True)


def main(words: Sequence[str]) -> None:
    match list(words):
        case ["build"]:
            build()
        case ["start"]:
            print(f"export KUBECONFIG={start()}")  # noqa: T201 - for the shell
        case ["stop"]:
            stop()
        case ["status"]:
            print(lacking() or f"built; runs: {', '.join(sorted(noted())) or 'nothing'}")  # noqa: T201
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
