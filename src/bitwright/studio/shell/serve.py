"""From a configuration to a running studio with an address to open."""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import webbrowser
from collections.abc import Callable
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp

from bitwright.errors import InputError, ResourceError
from bitwright.studio.shell.app import create
from bitwright.studio.shell.config import PORT, Config

NEXT = 20
"""Ports tried above the usual one where nobody asked for a certain one."""
PATIENCE = 3
"""Seconds that open connections get when the studio stops."""


def serve(config: Config, say: Callable[[str], None], browser: bool = False) -> None:
    """Run the studio until Ctrl-C; `say` is told its address. ResourceError where it cannot listen or store."""
    if not is_local(config.host) and config.token is None:
        config = replace(config, token=secrets.token_urlsafe(18))
    listening = listen(config.host, config.port)
    address = url(config, listening.getsockname()[1])
    try:
        server = uvicorn.Server(server_config(create(config)))
        say(f"studio: {address}")
        say(f"  data in {config.data}; Ctrl-C stops it, running work goes on at the next start")
        if browser:
            webbrowser.open(address)
        server.run(sockets=[listening])
    finally:
        listening.close()


def server_config(app: ASGIApp) -> uvicorn.Config:
    """How the app is served. A proxy on this machine says in X-Forwarded-Proto whether it was asked by HTTPS."""
    return uvicorn.Config(
        app, log_level="warning", lifespan="on", timeout_graceful_shutdown=PATIENCE,
        proxy_headers=True, forwarded_allow_ips="127.0.0.1,::1",
    )  # fmt: skip


def url(config: Config, port: int) -> str:
    """The address to open, with the token where there is one."""
    host = config.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    elif ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}/" + (f"?token={config.token}" if config.token else "")


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int | None) -> socket.socket:
    """A bound socket: on `port`, or where None on the usual one or the next that is free. ResourceError otherwise."""
    ports = [port] if port is not None else range(PORT, PORT + NEXT)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for wanted in ports:
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((host, wanted))
            made.listen(128)
            return made
        except PermissionError as error:
            made.close()
            fix = "Choose a --port above 1023"
            raise ResourceError("may not be listened on", where=f"port {wanted}", fix=fix) from error
        except socket.gaierror as error:
            made.close()
            raise InputError(
                f"is no address of this machine ({error.strerror})", where=f"--host {host}", fix="Use 127.0.0.1"
            ) from error
        except OSError as error:
            made.close()
            if error.errno == errno.EADDRNOTAVAIL:
                what, fix = "is no address of this machine", "Use 127.0.0.1"
                raise InputError(what, where=f"--host {host}", fix=fix) from error
            if port is not None:
                what = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be listened on ({error.strerror})"
                fix = "Leave --port out to take one that is free, or stop the other program"
                raise ResourceError(what, where=f"{host}:{wanted}", fix=fix) from error
    raise ResourceError("are all in use", where=f"ports {PORT} to {PORT + NEXT - 1}", fix="Choose another with --port")
