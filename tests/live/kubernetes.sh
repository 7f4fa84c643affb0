#!/bin/sh
# A Kubernetes cluster of one node on this very machine, for the live tests of `kubernetes`.
#
#   tests/live/kubernetes.sh build      fetch Debian's source and build it: minutes, once
#   tests/live/kubernetes.sh start      bring the cluster up and write its kubeconfig
#   tests/live/kubernetes.sh stop       end it and put back what the kubelet changed
#   tests/live/kubernetes.sh status     say whether it is built and whether it runs
#
# Debian bookworm ships no server of Kubernetes as a binary, and nothing else is to be had from a
# package archive; its *source* package still holds the whole server. Everything lies below
# ISOBENCH_KUBERNETES (default /opt/isobench-kubernetes), outside the checkout. Needs root. Uses
# only addresses of this machine: the loopback's own and one more (10.99.77.1) while it runs.
set -eu

home=${ISOBENCH_KUBERNETES:-/opt/isobench-kubernetes}
version=v1.20.2
address=10.99.77.1
programs="kube-apiserver kube-scheduler kubelet"

say() { printf '%s\n' "kubernetes.sh: $*" >&2; }
die() { say "$*"; exit 1; }

built() { for program in $programs; do [ -x "$home/bin/$program" ] || return 1; done; }

build() {
    if built; then say "built already: $home/bin"; return; fi
    for tool in go rsync make gcc dpkg-source; do
        command -v "$tool" >/dev/null \
            || die "missing $tool: apt-get install golang-go rsync make gcc dpkg-dev"
    done
    mkdir -p "$home/apt/lists/partial" "$home/bin" "$home/build"
    # Lists of its own: the machine's package lists and sources stay as they are.
    echo "deb-src http://deb.debian.org/debian bookworm main" >"$home/apt/sources.list"
    lists="-o Dir::Etc::sourcelist=$home/apt/sources.list -o Dir::Etc::sourceparts=/dev/null
           -o Dir::State::lists=$home/apt/lists -o APT::Sandbox::User=root"
    cd "$home/build"
    # shellcheck disable=SC2086 # the options are words
    apt-get $lists update
    # shellcheck disable=SC2086
    apt-get $lists source --download-only kubernetes
    rm -rf source
    dpkg-source -x --no-check kubernetes_*.dsc source
    cat >version <<END
KUBE_GIT_COMMIT='debian'
KUBE_GIT_TREE_STATE='clean'
KUBE_GIT_VERSION='$version'
KUBE_GIT_MAJOR='1'
KUBE_GIT_MINOR='20'
END
    cd source
    # One compiler at a time: whoever shares this machine should hardly notice.
    KUBE_GIT_VERSION_FILE="$home/build/version" GOFLAGS="-p=1" GOPROXY=off GO111MODULE=auto \
        GOMAXPROCS=1 GOCACHE="$home/build/cache" GOPATH="$home/build/path" \
        nice -n 19 make all GOLDFLAGS="-s -w" \
        WHAT="cmd/kube-apiserver cmd/kube-scheduler cmd/kubelet"
    for program in $programs; do
        cp "_output/local/bin/linux/$(go env GOARCH)/$program" "$home/bin/$program"
    done
    cd "$home"
    rm -rf "$home/build" "$home/apt"
    say "built: $home/bin"
}

case "${1:-}" in
build) build ;;
*) die "usage: $0 build|start|stop|status" ;;
esac
