"""Nothing that people have written is lost: restarts, kills, rotated keys, other images."""

from __future__ import annotations

import contextlib
import pathlib
import signal
import sqlite3

import pytest

from chat import people, pod
from chat.site import Site


def titles(database: pathlib.Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return sorted(row[0] for row in connection.execute("SELECT title FROM chat"))


async def test_kills_and_a_rotated_engine_key_lose_no_chat_and_no_session(site: Site) -> None:
    async with site.client() as client:
        headers = await people.token(client)
        wanted = []
        for number, ending in enumerate((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)):
            wanted.append(f"chat {number}")
            await people.keep_chat(client, headers, wanted[-1])
            if number == 1:
                site.rotate_engine_key()
            await site.restart(ending)
            assert await people.chats(client, headers) == wanted
        # One image all the time: nothing to copy.
        assert list((site.pod.data / "backups").glob("*.db")) == []


async def test_another_image_finds_a_copy_and_the_copy_can_be_restored(site: Site) -> None:
    async with site.client() as client:
        headers = await people.token(client)
        await people.keep_chat(client, headers, "before")
        site.spec = {**site.spec, "chat": {"image": "registry.example.com/open-webui:v0.12.5"}}
        await site.restart(signal.SIGKILL)
        await people.keep_chat(client, headers, "after")
        (copy,) = (site.pod.data / "backups").glob("*.db")
        assert titles(copy) == ["before"]
        assert site.rendered()[0]["initContainers"][0]["image"].endswith("v0.12.5")
        site.pod.stop()
        site.pod.restore(copy.name)
        await site.start()
        assert await people.chats(client, headers) == ["before"]


async def test_a_database_of_a_newer_release_is_left_alone(site: Site) -> None:
    async with site.client() as client:
        await people.keep_chat(client, await people.token(client), "before")
    site.pod.stop()
    with contextlib.closing(sqlite3.connect(site.pod.data / "webui.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(pod.NotPrepared, match=r"newer Open WebUI .*spec\.chat\.image"):
        await site.start()
    assert titles(site.pod.data / "webui.db") == ["before"]
