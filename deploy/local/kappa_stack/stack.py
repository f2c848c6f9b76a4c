"""One stack: its services brought up, taken down, stopped and started again."""

from __future__ import annotations

import shlex
import shutil
import signal
import time
from pathlib import Path

from .downloads import Say
from .errors import StackError
from .layout import Layout, port_is_free
from .process import Process, resident_mib
from .services import SERVICES, Service


class Stack:
    def __init__(self, root: Path, say: Say) -> None:
        self.layout = Layout(root)
        self.say = say

    def up(self) -> None:
        started = time.monotonic()
        with self.layout.locked():
            state = self.layout.state() if self.layout.exists() else self.layout.create_state()
            services = [service(self.layout, state) for service in SERVICES]
            missing = [service for service in services if not self._process(service).running()]
            self._start(missing)
            self._await(services)
            self._write_env(services)
        if missing:
            self.say(f"up in {time.monotonic() - started:.1f} s; to use it: . {_shown(self.layout.env_file)}")
        else:
            self.say(f"already up; to use it: . {_shown(self.layout.env_file)}")

    def down(self, keep_data: bool) -> None:
        with self.layout.locked():
            if not self.layout.exists():
                self.say(f"no stack in {_shown(self.layout.root)}: nothing to do")
            else:
                self._stop(self._services())
                self.layout.env_file.unlink(missing_ok=True)
            if keep_data:
                self.say(f"down; data and ports kept in {_shown(self.layout.root)}")
                return
            # Only what the stack made: DIR may be a directory somebody chose carelessly.
            for directory in (self.layout.data, self.layout.logs, self.layout.pids):
                shutil.rmtree(directory, ignore_errors=True)
            self.layout.state_file.unlink(missing_ok=True)
            (self.layout.root / "lock").unlink(missing_ok=True)
        try:
            self.layout.root.rmdir()
        except OSError:
            pass  # something that is not ours lies in it
        self.say("down, nothing left")

    def start(self, names: list[str]) -> None:
        with self.layout.locked():
            services = self._services(names)
            self._start([service for service in services if not self._process(service).running()])
            self._await(services)

    def stop(self, names: list[str]) -> None:
        with self.layout.locked():
            self._stop(self._services(names))

    def kill(self, names: list[str]) -> None:
        with self.layout.locked():
            for service in self._services(names):
                self.say(f"{service.name}: {self._process(service).kill()}")

    def signal(self, names: list[str], number: signal.Signals, done: str) -> None:
        with self.layout.locked():
            for service in self._services(names):
                if not self._process(service).signal(number):
                    raise StackError(f"{service.name} is not running: start it with `stack start {service.name}`")
                self.say(f"{service.name}: {done}")

    def status(self) -> bool:
        """Prints one line per service. True when all answer."""
        all_answer = True
        for service in self._services():
            known = self._process(service).running()
            if known is None:
                state, detail = "stopped", ""
            else:
                detail = f"pid {known.pid}, {resident_mib(known.pid)} MiB"
                try:
                    service.check()
                    state = "answers"
                except Exception as error:  # whatever it is, it is the answer to "how is it?"
                    state, detail = "no answer", f"{detail}, {error}"
            all_answer &= state == "answers"
            self.say(f"{service.name:<11} 127.0.0.1:{service.port:<6} {state:<10} {detail}")
        return all_answer

    def env(self) -> str:
        if not self.layout.env_file.exists():
            raise StackError(f"no stack is up in {self.layout.root}: start one with `stack up`")
        return self.layout.env_file.read_text()

    def _services(self, names: list[str] | None = None) -> list[Service]:
        state = self.layout.state()
        services = [service(self.layout, state) for service in SERVICES]
        return [service for service in services if names is None or service.name in names]

    def _process(self, service: Service) -> Process:
        return Process(self.layout.pids / f"{service.name}.pid")

    def _start(self, services: list[Service]) -> None:
        """Prepares all, then starts all: they come up side by side."""
        begun: list[Service] = []
        try:
            commands = [(service, service.prepare(self.say)) for service in services]
            for service, command in commands:
                self._require_ports(service)
                self._process(service).start(command.argv, command.env, self.layout.log_file(service.name), command.cwd)
                begun.append(service)
            self._await(begun)
            for service in begun:
                self.say(f"{service.name} answers on 127.0.0.1:{service.port}")
        except BaseException:
            # No half a stack: what this command began, it ends.
            for service in begun:
                self._process(service).kill()
            raise

    def _require_ports(self, service: Service) -> None:
        for port in service.ports:
            if not port_is_free(port):
                raise StackError(
                    f"port {port} of {service.name} is in use by another program: end that program,"
                    f" or give the stack other ports with `stack down` and `stack up`"
                )

    def _await(self, services: list[Service]) -> None:
        for service in services:
            started = time.monotonic()
            process = self._process(service)
            while True:
                try:
                    service.check()
                    break
                except Exception as error:  # refused, reset, a half answer: all mean "not yet"
                    reason = str(error) or type(error).__name__
                log = _shown(self.layout.log_file(service.name))
                if process.running() is None:
                    raise StackError(f"{service.name} ended instead of answering: read {log}{_tail(self.layout.log_file(service.name))}")
                if time.monotonic() - started > service.start_timeout:
                    raise StackError(f"{service.name} does not answer after {service.start_timeout:.0f} s ({reason}): read {log}")
                time.sleep(0.05)
            service.after_start()

    def _stop(self, services: list[Service]) -> None:
        # All are asked at once, so the slowest decides how long it takes.
        for service in services:
            self._process(service).signal(signal.SIGCONT)
            self._process(service).signal(signal.SIGTERM)
        for service in services:
            started = time.monotonic()
            how = self._process(service).stop(service.grace)
            if how == "stopped":
                service.after_stop()
            self.say(f"{service.name}: {how} ({time.monotonic() - started:.1f} s)")

    def _write_env(self, services: list[Service]) -> None:
        lines = [f"# Written by `stack up`; source it: . {_shown(self.layout.env_file)}"]
        for service in services:
            lines += [f"export {name}={shlex.quote(value)}" for name, value in service.environment().items()]
        temporary = self.layout.env_file.with_suffix(".tmp")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.replace(self.layout.env_file)


def _shown(path: Path) -> str:
    """Relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _tail(file: Path, lines: int = 5) -> str:
    try:
        text = file.read_text(errors="replace").strip()
    except OSError:
        return ""
    return "\n  " + "\n  ".join(text.splitlines()[-lines:]) if text else ""
