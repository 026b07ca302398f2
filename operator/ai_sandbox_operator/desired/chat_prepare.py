"""Runs in the chat's image before the chat starts: keeps its data safe and its door shut.

The source of this file is the command line of the pod's init container, hence the standard library
only. Arguments: the image, the chat's data directory, the directory of its migrations. It is run, never
imported. Ends with exit code 1 and one line for a person when the chat must not start.

* Open WebUI migrates its database at start and has no way back, so the database is copied before
  another image touches it. A copy appears under its final name only when it is complete.
* A database that a newer release has migrated is refused, before any copy is made or removed.
* Without a user and without a password that bcrypt takes, Open WebUI starts all the same, and makes
  the first visitor its administrator.

Source: Open WebUI 0.12.4, `config.run_migrations`, `utils.auth.create_admin_user`, `routers.auths.signup`.
"""

import contextlib
import datetime
import os
import pathlib
import re
import sqlite3
import sys

#: Copies that are kept; the oldest go.
KEEP = 3
#: bcrypt's limit.
MAX_PASSWORD_BYTES = 72
RESTORE = 'see "Restore a backup" in docs/chat.md'


class Refused(Exception):
    """The chat must not start; the message says what to do."""


def prepare(image: str, data: pathlib.Path, migrations: pathlib.Path) -> None:
    """Check the database, copy it if another image is about to run, and note that image.

    Raises:
        Refused: the chat must not start.
        OSError, sqlite3.Error: the volume or the database cannot be read or written.
    """
    database, folder = data / "webui.db", data / "backups"
    folder.mkdir(exist_ok=True)
    # Also SQLite's files beside a copy that was interrupted.
    for partial in folder.glob("*.partial*"):
        partial.unlink()
    note = folder / "started-by"
    before = note.read_text() if note.exists() else ""
    known = sorted(path.name for path in migrations.glob("*.py"))
    # A tag may move: its migrations tell what its name does not.
    now = "\n".join([image, *known])
    has_users = False
    if database.exists():
        with contextlib.closing(sqlite3.connect(database)) as source:
            has_users = bool(rows(source, "user", "SELECT 1 FROM user LIMIT 1"))
            revisions = [
                row[0] for row in rows(source, "alembic_version", "SELECT version_num FROM alembic_version")
            ]
            unknown = [one for one in revisions if not any(name.startswith(f"{one}_") for name in known)]
            if unknown and known:
                raise Refused(
                    f"a newer Open WebUI has migrated the database (schema {unknown[0]}), {image} cannot use it: "
                    f"set spec.chat.image to a newer release, or restore a backup made before the update ({RESTORE})"
                )
            if revisions and before != now:
                copy(source, folder, before.partition("\n")[0] or "unknown")
    if not has_users:
        require_administrator()
    write(note, now)


def rows(source: sqlite3.Connection, table: str, query: str) -> list[tuple[str]]:
    """The answer to a query; nothing without the table, as in a database that was never migrated."""
    tables = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return source.execute(query).fetchall() if source.execute(tables, [table]).fetchall() else []


def copy(source: sqlite3.Connection, folder: pathlib.Path, image: str) -> None:
    """Copy the database, with what stands in its write-ahead log only, into one file; then drop the oldest.

    Raises:
        Refused: the database is damaged.
    """
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    final = folder / f"{moment}-{re.sub('[^A-Za-z0-9.]+', '-', image)[-120:]}.db"
    partial = final.with_suffix(".partial")
    with contextlib.closing(sqlite3.connect(partial)) as target:
        source.backup(target)
        # Else the copy could only be read where it can be written.
        target.execute("PRAGMA journal_mode = DELETE").fetchall()
        if (verdict := target.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise Refused(f"the chat's database is damaged ({verdict}): {RESTORE}")
    publish(partial, final)
    for old in sorted(path for path in folder.glob("*.db") if path != final)[: 1 - KEEP]:
        old.unlink()
    print(f"copied the database of {image} to {final}")  # noqa: T201 - the container's log


def require_administrator() -> None:
    """Raises: Refused, if Open WebUI could not make its administrator."""
    password = os.environ.get("WEBUI_ADMIN_PASSWORD", "")
    if not os.environ.get("WEBUI_ADMIN_EMAIL") or not 0 < len(password.encode()) <= MAX_PASSWORD_BYTES:
        raise Refused(
            "the chat has no user yet, and its first visitor would become the administrator: the key password of "
            f"the Secret in spec.chat.admin.secretName must hold 1 to {MAX_PASSWORD_BYTES} bytes"
        )


def write(path: pathlib.Path, text: str) -> None:
    """Replace a file as a whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    publish(partial, path)


def publish(partial: pathlib.Path, final: pathlib.Path) -> None:
    """Rename, with the content on the disk before the name, and the name before whatever follows."""
    flush(partial)
    partial.rename(final)
    flush(final.parent)


def flush(path: pathlib.Path) -> None:
    """Wait until a file, or the names in a directory, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def main() -> None:
    """Prepare, or say in one line why not."""
    image, data, migrations = sys.argv[1:]
    try:
        prepare(image, pathlib.Path(data), pathlib.Path(migrations))
    except Refused as refusal:
        sys.exit(f"not started: {refusal}")
    except (OSError, sqlite3.Error) as error:
        sys.exit(
            f"not started: the chat's volume: {error}: free or add space (spec.chat.storage.size), or {RESTORE}"
        )


if __name__ == "__main__":
    main()
