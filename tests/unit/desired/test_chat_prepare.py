"""What runs before the chat, as the pod runs it: on real SQLite files, killed at every step."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ai_sandbox_operator.desired import chat, chat_prepare
from unit.desired import samples

OLD, NEW = "registry.example.com/chat:1", "registry.example.com/chat:2@sha256:0a1b"
PASSWORD = "Only-4-the-admin"
#: Ends the program before its n-th call that opens, renames or removes a file or opens a database.
KILLER = """
import os, sys
left = int(sys.argv.pop(1))
def hook(event, arguments):
    global left
    if event in ("os.mkdir", "os.rename", "os.remove", "open", "sqlite3.connect"):
        left -= 1
        if left < 0:
            os._exit(137)
sys.addaudithook(hook)
"""


class Volume:
    """The chat's volume, and the migrations that its image knows."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.data, self.migrations = folder / "data", folder / "versions"
        self.database, self.backups = self.data / "webui.db", self.data / "backups"
        self.data.mkdir()
        self.migrations.mkdir()
        (self.migrations / "aaaa_first.py").touch()

    def release(self, revision: str) -> None:
        """The image now has one migration more."""
        (self.migrations / f"{revision}_more.py").touch()

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection as the chat has it."""
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            yield connection

    def fill(self, *, revision: str = "aaaa", users: int = 1, chats: int = 3) -> None:
        with self.open() as connection:
            connection.executescript(
                "CREATE TABLE user (id); CREATE TABLE chat (text); CREATE TABLE alembic_version (version_num);"
            )
            connection.execute("INSERT INTO alembic_version VALUES (?)", [revision])
            connection.executemany("INSERT INTO user VALUES (?)", [[n] for n in range(users)])
            connection.executemany("INSERT INTO chat VALUES (?)", [[f"chat {n}"] for n in range(chats)])

    def command(self, image: str, killed_before: int | None = None) -> list[str]:
        """The init container's command line, on this machine's paths."""
        deployment = samples.child(samples.rendered({"chat": {"image": image}}), "Deployment", "demo-chat")
        (container,) = deployment["spec"]["template"]["spec"]["initContainers"]
        program, option, source, given, *paths = container["command"]
        assert (program, option, given, paths[0]) == ("python3", "-c", image, "/app/backend/data")
        source = source.replace("$$(", "$(")
        arguments = [image, str(self.data), str(self.migrations)]
        if killed_before is None:
            return [sys.executable, option, source, *arguments]
        return [sys.executable, option, KILLER + source, str(killed_before), *arguments]

    def prepare(
        self, image: str, *, password: str = PASSWORD, killed_before: int | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(image, killed_before),
            env={"WEBUI_ADMIN_EMAIL": "admin@example.com", "WEBUI_ADMIN_PASSWORD": password},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def copies(self) -> list[pathlib.Path]:
        return sorted(self.backups.glob("*.db"))


def chats(database: pathlib.Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [row[0] for row in connection.execute("SELECT text FROM chat ORDER BY rowid")]


@pytest.fixture
def volume(tmp_path: pathlib.Path) -> Volume:
    return Volume(tmp_path)


def test_an_empty_volume_needs_no_copy(volume: Volume) -> None:
    assert volume.prepare(OLD).returncode == 0
    volume.fill()
    assert volume.prepare(OLD).returncode == 0
    assert volume.copies() == []


def test_another_image_finds_a_copy_of_what_the_one_before_it_left(volume: Volume) -> None:
    volume.prepare(OLD)
    volume.fill()
    assert volume.prepare(NEW).returncode == 0
    (copy,) = volume.copies()
    assert copy.name.endswith("Z-registry.example.com-chat-1.db")
    assert chats(copy) == ["chat 0", "chat 1", "chat 2"]
    with volume.open() as connection:
        connection.execute("DELETE FROM chat")
    assert volume.prepare(NEW).returncode == 0
    assert volume.copies() == [copy]


def test_a_volume_from_before_there_were_copies_is_copied_once(volume: Volume) -> None:
    volume.fill()
    assert volume.prepare(OLD).returncode == 0
    assert [copy.name.partition("Z-")[2] for copy in volume.copies()] == ["unknown.db"]
    volume.prepare(OLD)
    assert len(volume.copies()) == 1


def test_a_tag_that_moved_to_other_migrations_counts_as_another_image(volume: Volume) -> None:
    volume.prepare(OLD)
    volume.fill()
    volume.release("bbbb")
    assert volume.prepare(OLD).returncode == 0
    assert len(volume.copies()) == 1


def test_chats_that_stand_in_the_write_ahead_log_only_are_in_the_copy(volume: Volume) -> None:
    volume.prepare(OLD)
    volume.fill()
    # As after a SIGKILL: the log was never written back, and holds all that came after `fill`.
    writing = (
        "import os, sqlite3, sys\n"
        "one = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "one.execute('PRAGMA wal_autocheckpoint = 0')\n"
        "one.execute(\"INSERT INTO chat VALUES ('only in the log')\")\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", writing, str(volume.database)], check=True, timeout=60)
    assert volume.database.with_name("webui.db-wal").stat().st_size > 0
    assert "only in the log" not in chats(volume.database)
    assert volume.prepare(NEW).returncode == 0
    (copy,) = volume.copies()
    assert chats(copy)[-1] == "only in the log"
    # One file, in the journal mode that needs no other: bytes 18 and 19 of its header.
    assert sorted(path.suffix for path in volume.backups.iterdir()) == ["", ".db"]
    assert copy.read_bytes()[18:20] == b"\x01\x01"


def test_the_three_youngest_copies_are_kept(volume: Volume) -> None:
    volume.fill()
    (volume.data / "backups").mkdir()
    old = [volume.backups / f"2026010{day}T000000Z-chat.db" for day in range(1, 6)]
    for path in old:
        path.touch()
    volume.prepare(NEW)
    assert len(volume.copies()) == chat_prepare.KEEP == 3
    assert volume.copies()[:2] == old[3:]


def test_a_database_of_a_newer_release_is_refused_and_no_copy_is_lost(volume: Volume) -> None:
    volume.release("bbbb")
    volume.fill(revision="bbbb")
    volume.prepare(NEW)
    before = sorted(volume.backups.iterdir())
    (volume.migrations / "bbbb_more.py").unlink()
    refused = volume.prepare(OLD)
    assert refused.returncode == 1
    assert "newer Open WebUI has migrated the database (schema bbbb)" in refused.stderr
    assert "spec.chat.image" in refused.stderr
    assert len(refused.stderr) < 400
    assert sorted(volume.backups.iterdir()) == before
    assert chats(volume.database) == ["chat 0", "chat 1", "chat 2"]


@pytest.mark.parametrize("password", ["", "x" * 73, "é" * 37])
@pytest.mark.parametrize("users", [None, 0])
def test_no_chat_starts_whose_first_visitor_would_be_its_administrator(
    volume: Volume, password: str, users: int | None
) -> None:
    if users is not None:
        volume.fill(users=users)
    refused = volume.prepare(OLD, password=password)
    assert refused.returncode == 1
    assert "first visitor" in refused.stderr
    assert not password or password not in refused.stderr


def test_the_password_no_longer_counts_once_there_is_a_user(volume: Volume) -> None:
    volume.fill(users=1)
    assert volume.prepare(OLD, password="").returncode == 0


def test_a_damaged_database_is_not_started(volume: Volume) -> None:
    volume.prepare(OLD)
    volume.fill(chats=2000)
    with volume.open() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with volume.database.open("r+b") as file:
        file.seek(-6000, 2)
        file.write(b"\xff" * 2000)
    refused = volume.prepare(NEW)
    assert refused.returncode == 1
    assert "Restore a backup" in refused.stderr
    assert volume.copies() == []


def test_a_restored_copy_is_the_chat_of_its_time(volume: Volume) -> None:
    """The commands are those of docs/chat.md."""
    volume.prepare(OLD)
    volume.fill()
    volume.prepare(NEW)
    volume.release("bbbb")
    with volume.open() as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'bbbb'")
        connection.execute("ALTER TABLE chat RENAME COLUMN text TO body")
    (volume.migrations / "bbbb_more.py").unlink()
    assert volume.prepare(OLD).returncode == 1
    (copy,) = volume.copies()
    restore = f"rm -f webui.db-wal webui.db-shm backups/started-by && cp backups/{copy.name} webui.db"
    subprocess.run(["sh", "-c", restore], cwd=volume.data, check=True, timeout=60)
    assert restore.replace(copy.name, "NAME.db") in documentation()
    assert volume.prepare(OLD).returncode == 0
    assert chats(volume.database) == ["chat 0", "chat 1", "chat 2"]


def documentation() -> str:
    return (pathlib.Path(__file__).resolve().parents[3] / "docs" / "chat.md").read_text()


def test_killed_at_any_step_it_leaves_whole_copies_and_ends_well_the_next_time(
    tmp_path: pathlib.Path,
) -> None:
    """I2: the note that an image was admitted never precedes the copy of what it may change."""
    step, ended = 0, False
    while not ended:
        folder = tmp_path / str(step)
        folder.mkdir()
        volume = Volume(folder)
        volume.prepare(OLD)
        volume.fill()
        ended = volume.prepare(NEW, killed_before=step).returncode == 0
        note = (volume.backups / "started-by").read_text()
        assert note.startswith(NEW if ended else (OLD, NEW))
        if note.startswith(NEW):
            assert volume.copies()
        for copy in volume.copies():
            assert chats(copy) == ["chat 0", "chat 1", "chat 2"]
        assert volume.prepare(NEW).returncode == 0
        assert volume.copies()
        assert chats(volume.database) == ["chat 0", "chat 1", "chat 2"]
        assert list(volume.backups.glob("*.partial")) == []
        step += 1
    assert step > 10


def test_killed_while_it_copies_it_leaves_no_copy(volume: Volume) -> None:
    volume.prepare(OLD)
    volume.fill()
    with volume.open() as connection:
        connection.execute("CREATE TABLE file AS SELECT zeroblob(100000000) AS content")
    with subprocess.Popen(
        volume.command(NEW), env={"WEBUI_ADMIN_EMAIL": "a@b.c", "WEBUI_ADMIN_PASSWORD": PASSWORD}
    ) as running:
        while not any(path.stat().st_size for path in volume.backups.glob("*.partial")):
            assert running.poll() is None, "it was faster than the test"
            time.sleep(0.001)
        running.send_signal(signal.SIGKILL)
    assert volume.copies() == []
    for name in ("20260101T000000Z-old.partial", "20260101T000000Z-old.partial-journal"):
        (volume.backups / name).touch()
    assert (volume.backups / "started-by").read_text().startswith(OLD)
    assert volume.prepare(NEW).returncode == 0
    (copy,) = volume.copies()
    assert len(chats(copy)) == 3
    assert sorted(path.name for path in volume.backups.iterdir()) == [copy.name, "started-by"]


def test_a_full_volume_is_told(volume: Volume) -> None:
    volume.prepare(OLD)
    volume.fill()
    limited = ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *volume.command(NEW)]
    refused = subprocess.run(limited, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 1
    assert "spec.chat.storage.size" in refused.stderr
    assert volume.copies() == []


def test_it_runs_in_the_image_of_the_chat_with_the_volume_alone() -> None:
    deployment = samples.child(samples.rendered(), "Deployment", "demo-chat")
    pod = deployment["spec"]["template"]["spec"]
    (before,), (container,) = pod["initContainers"], pod["containers"]
    assert before["name"] == chat.PREPARE
    assert before["image"] == container["image"]
    assert before["volumeMounts"] == [{"name": "data", "mountPath": "/app/backend/data"}]
    assert {one["name"] for one in before["env"]} == {"WEBUI_ADMIN_EMAIL", "WEBUI_ADMIN_PASSWORD"}
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
