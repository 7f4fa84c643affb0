"""Takes the command line of a QEMU, speaks its monitor's language, and behaves as told.

The last argument names what it does. "mute" never answers the monitor.
"""

import json
import os
import re
import socket
import sys
import time

FLOOD = 8 << 20
ends = {
    name: socket.socket(fileno=int(number))
    for argument in sys.argv
    for name, number in re.findall(r"^socket,id=(\w+),fd=(\d+)$", argument)
}
scenario = sys.argv[-1]
status = {"stop": "io-error"}.get(scenario, "running")


def event(name: str, **data: object) -> None:
    say({"event": name, "data": data, "timestamp": {"seconds": 1, "microseconds": 0}})


def say(message: object) -> None:
    ends["qmp"].sendall(json.dumps(message).encode() + b"\r\n")


def answer(asked: dict[str, object]) -> None:
    match asked["execute"]:
        case "query-status":
            if scenario != "stopped-and-mute":
                say({"id": asked["id"], "return": {"status": status, "running": False}})
        case "query-version":
            say({"id": asked["id"], "return": {"qemu": {"major": 7, "minor": 2, "micro": 22}}})
        case "human-monitor-command":
            table = "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port\r\n"
            line = "  TCP[HOST_FORWARD]  12       127.0.0.1 40123       10.0.2.15    22 0 0\r\n"
            shown = table if scenario == "no-port" else table + line
            say({"id": asked["id"], "return": shown})
        case "device_add":
            error = {"class": "GenericError", "desc": "no such device"}
            say({"id": asked["id"], "error": error})
        case _:
            say({"id": asked["id"], "return": {}})


def act() -> None:  # noqa: C901, PLR0912 - a table of scenarios
    """Do what the scenario wants, once the monitor is open."""
    log, out, err = ends["log"], ends["out"], ends["err"]
    match scenario:
        case "in-pieces":
            for piece in (b"\r\n", b"Linux ver", b"sion 6\r\nisobe", b"nch: in", b"it\r\n"):
                log.sendall(piece)
                time.sleep(0.02)
            log.sendall(b"not isobench: ready\r\nisobench: re")
            time.sleep(0.02)
            log.sendall(b"ady\r\n\nisobench: exit 7\n")
        case "stop":
            event("STOP")
        case "stopped-and-mute":
            event("STOP")
        case "panic":
            log.sendall(b"[    1.0] Kernel panic - not sync")
            log.sendall(b"ing: VFS: Unable to mount \x1b[31mroot fs\r\n[    1.1] CPU: 0\r\n")
        case "failed":
            log.sendall(b"isobench: init\nisobench: failed network 19\n")
        case "flood":
            block = b"isobench: noise\n" + b"x" * 65519 + b"\n"
            for _ in range(FLOOD // len(block)):
                log.sendall(block)
                out.sendall(block)
                err.sendall(block)
            log.sendall(b"isobench: exit 0\n")
        case "answer-and-end":
            # As much as the socket holds, then at once the word that all is said.
            out.sendall(b"o" * 150_000)
            err.sendall(b"e" * 100_000)
            log.sendall(b"isobench: exit 3\n")
        case "garbage":
            ends["qmp"].sendall(b"\xff\xfe no JSON\r\n[1, 2]\r\n3\r\n")
            log.sendall(bytes(range(256)) + b"\nisobench: \xff\xfe\x1b[2J\nisobench: ready\n")
        case "vanish":
            log.sendall(b"isobench: init\n")
            sys.stderr.write("qemu-system-fake: something broke\n")
            sys.stderr.flush()
            os._exit(9)
        case "killed":
            os.kill(os.getpid(), 9)
        case _:
            pass


def main() -> None:
    if scenario == "refuse":
        sys.stderr.write("qemu-system-fake: -machine nothing: unsupported machine type\n")
        sys.exit(1)
    if scenario == "no-direct":
        sys.stderr.write("fake: Could not open 'disk': filesystem does not support O_DIRECT\n")
        sys.exit(1)
    say({"QMP": {"version": {}, "capabilities": []}})
    rest = b""
    while chunk := ends["qmp"].recv(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            if scenario == "mute":
                continue
            answer(asked)
            if asked["execute"] == "qmp_capabilities":
                act()
            if asked["execute"] == "quit":
                sys.exit(0)


main()
