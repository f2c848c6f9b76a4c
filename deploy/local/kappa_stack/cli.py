"""The command line of the stack."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from .downloads import HERE
from .errors import StackError
from .services import SERVICES
from .stack import Stack

REPOSITORY = HERE.parent.parent
NAMES = [service.name for service in SERVICES]


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dir", type=Path, default=REPOSITORY / "target" / "stack", help="where the stack keeps everything (default: target/stack)")
    parser = argparse.ArgumentParser(prog="stack", description="Kafka, schema registry, S3 and ClickHouse on this machine, without containers.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str, takes_services: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, parents=[common])
        if takes_services:
            command.add_argument("services", nargs="+", choices=NAMES, metavar="SERVICE", help=", ".join(NAMES))
        return command

    add("fetch", "download and build what the services need, once; nothing is started")
    add("up", "start every service and wait until all answer")
    add("down", "stop every service and delete its data").add_argument("--keep-data", action="store_true", help="leave data, logs and ports for the next `up`")
    add("status", "say how each service is; exit code 1 unless all answer")
    add("env", "print the environment for clients")
    add("start", "start services again, on their old port with their old data", True)
    add("stop", "stop services gracefully, keeping port and data", True)
    add("kill", "SIGKILL services: the crash", True)
    add("pause", "SIGSTOP services: connected, but silent", True)
    add("resume", "SIGCONT services", True)
    return parser


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    started = time.monotonic()

    def say(text: str) -> None:
        stamp = f"[{time.monotonic() - started:5.1f} s] " if options.command in ("fetch", "up", "start") else ""
        print(f"{stamp}{text}", flush=True)

    stack = Stack(options.dir, say)
    try:
        match options.command:
            case "fetch":
                for service in SERVICES:
                    service.fetch(say)
            case "up":
                stack.up()
            case "down":
                stack.down(options.keep_data)
            case "status":
                return 0 if stack.status() else 1
            case "env":
                print(stack.env(), end="")
            case "start":
                stack.start(options.services)
            case "stop":
                stack.stop(options.services)
            case "kill":
                stack.kill(options.services)
            case "pause":
                stack.signal(options.services, signal.SIGSTOP, "paused")
            case "resume":
                stack.signal(options.services, signal.SIGCONT, "resumed")
    except StackError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stack: interrupted", file=sys.stderr)
        return 130
    return 0
