"""The chat as people see it, in a real browser."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from chat import browser, environments, people
from chat.browser import Person
from chat.engine import ANSWER, MODEL, WORDS, State
from chat.site import ADMIN, PASSWORD, Site

#: Seconds by which the page may be later while the engine is not there.
A_FEW_SECONDS = 6.0


@pytest.fixture
async def person(site: Site) -> AsyncIterator[Person]:
    """A browser in which nobody has logged in."""
    if environments.driver() is None or environments.browser() is None:
        pytest.skip("no browser: make test-chat")
    async with browser.opened(site) as opened:
        yield opened


async def test_a_visitor_is_offered_a_login_and_no_account(person: Person) -> None:
    await person.open()
    await person.sees("Sign in")
    await person.picture("chat-login")
    for path in ("/auth", "/auth?form=true", "/auth?redirect=%2Fadmin"):
        await person.open(path)
        await person.sees("Sign in")
        text = (await person.page.inner_text("body")).lower()
        assert "sign up" not in text
        assert "create" not in text
    await person.page.locator("#email").fill(people.VISITOR["email"])
    await person.page.locator("#password").fill(people.VISITOR["password"])
    await person.page.locator("button[type=submit]").click()
    await person.sees("The email or password provided is incorrect")


async def test_the_administrator_logs_in_and_makes_a_user(person: Person, site: Site) -> None:
    await person.logs_in(ADMIN, PASSWORD)
    await person.page.get_by_text("Okay, Let's Go!").click()
    await person.open("/admin/users/overview")
    await person.page.get_by_role("button", name="Add User").click()
    form = person.page.get_by_role("dialog")
    await form.get_by_label("Name").fill(people.ANN["name"])
    await form.get_by_label("Email").fill(people.ANN["email"])
    await form.locator("input[type=password]").fill(people.ANN["password"])
    await person.picture("chat-users")
    await form.locator("input[type=password]").press("Enter")
    await person.sees(people.ANN["email"])
    async with site.client() as client:
        await people.token(client, people.ANN["email"], people.ANN["password"])


async def test_a_user_gets_streamed_answers_before_and_after_a_key_is_rotated(
    person: Person, site: Site
) -> None:
    async with site.client() as client:
        await people.make_user(client)
    await person.logs_in(people.ANN["email"], people.ANN["password"])
    await person.sees(MODEL)
    await person.asks("What is a sandbox?")
    await person.sees(WORDS[0].strip())
    assert WORDS[-1] not in await person.page.inner_text("body")
    await person.sees(ANSWER)
    await person.picture("chat-answer")
    assert site.engine.refused == 0

    site.rotate_engine_key()
    await site.restart()
    await person.page.reload()
    await person.sees(ANSWER)
    await person.open()
    await person.asks("Who else?")
    await person.sees(ANSWER)
    assert site.engine.refused == 0
    streamed = [body["messages"][-1]["content"] for body in site.engine.asked if body.get("stream")]
    assert streamed == ["What is a sandbox?", "Who else?"]


@pytest.mark.parametrize("state", [State.REFUSING, State.SILENT])
async def test_the_chat_is_there_while_the_engine_sleeps(person: Person, site: Site, state: State) -> None:
    await person.logs_in(ADMIN, PASSWORD)
    await person.page.get_by_text("Okay, Let's Go!").click()
    awake = await _seconds_to_load(person)
    await site.engine.become(state)
    # A chat that remembers the models from better days proves nothing.
    await site.restart()
    # Asking for the models would take 10 seconds of it, or 3 with the time-out that is set.
    assert await _seconds_to_load(person) < awake + A_FEW_SECONDS
    if state is State.REFUSING:
        await person.asks("Is anybody there?")
        await person.sees("Server Connection Error")
        await person.picture("chat-engine-asleep")
    # No reload: the next question finds the engine that is back.
    await site.engine.become(State.SERVING)
    await person.asks("And now?")
    await person.sees(ANSWER)


async def _seconds_to_load(person: Person) -> float:
    began = time.monotonic()
    await person.open()
    await person.sees(MODEL)
    return time.monotonic() - began
