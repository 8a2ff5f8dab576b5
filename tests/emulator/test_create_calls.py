"""What the create calls take, each field of them, and what they refuse."""

from __future__ import annotations

import copy
import json
from typing import Any

import aiohttp
import pytest

from distribute_async.emulator import Emulator
from tests.emulator import calls
from tests.emulator.calls import refusal, send

FULL_CHAT: dict[str, Any] = {
    "model": "Llama-3.1 8B",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!", "name": "Ada"},
    ],
    "reasoning_effort": "medium",
    "metadata": {"order": 5},
    "frequency_penalty": -2,
    "presence_penalty": 2.0,
    "max_completion_tokens": -1,
    "n": 1,
    "modalities": ["text"],
    "seed": 7,
    "service_tier": "default",
    "stop": ["END"],
    "stream": False,
    "stream_options": {},
    "temperature": 2,
    "top_p": 0.5,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "look_up",
                "description": "Look up.",
                "parameters": {"type": "object"},
                "strict": True,
            },
        }
    ],
    "tool_choice": "none",
    "parallel_tool_calls": True,
}


FULL: dict[str, dict[str, Any]] = {
    "chat": FULL_CHAT,
    "images": {
        "model": "Flux.1 [dev]",
        "prompt": "A fox in the snow" + "." * 983,
        "seed": 7,
        "style": "photo",
        "guidance_scale": 10,
        "num_inference_steps": 50.0,
        "n": 1,
        "response_format": "url",
        "size": "1024x999",
    },
    "speech": {
        "model": "Chatterbox",
        "input": "Hi" * 2048,
        "voice": "nora",
        "stream": False,
        "temperature": 0,
        "exaggeration": 1,
        "cfg_weight": 0.5,
    },
}


@pytest.mark.parametrize("kind", FULL)
async def test_all_documented_fields_are_taken(session: aiohttp.ClientSession, kind: str) -> None:
    """A create call with every documented field makes a task."""
    code, answer = await calls.post(session, f"/async/{kind}/create", FULL[kind])
    assert code == 200, answer
    assert answer.keys() == {"id"}
    assert (await calls.result(session, answer["id"], kind))["model"] == FULL[kind]["model"]


WRONG: dict[str, list[tuple[str, object]]] = {
    "chat": [
        ("model", 5),
        ("messages", "Hello!"),
        ("messages", {}),
        ("messages", ["Hello!"]),
        ("messages", [{"role": "user"}]),
        ("messages", [{"role": "user", "content": "Hello!", "mood": "good"}]),
        ("messages", [{"role": "user", "content": "Hello!", "name": None}]),
        ("frequency_penalty", 2.1),
        ("frequency_penalty", True),
        ("presence_penalty", -2.1),
        ("presence_penalty", "1"),
        ("max_completion_tokens", 601),
        ("max_completion_tokens", -2),
        ("n", "1"),
        ("n", False),
        ("temperature", 2.1),
        ("top_p", 1.1),
        ("stop", "END"),
        ("stop", [5]),
        ("stream", 0),
        ("tools", [{"type": "retrieval", "function": {"name": "look_up"}}]),
        ("tools", [{"type": "function", "function": {"description": "nameless"}}]),
        ("tools", [{"type": "function", "function": {"name": "look_up", "strict": 1}}]),
        ("tool_choice", 1),
        ("metadata", []),
        ("undocumented", 1),
    ],
    "images": [
        ("model", None),
        ("prompt", "x" * 1001),
        ("prompt", ["A fox"]),
        ("seed", "7"),
        ("style", 1),
        ("guidance_scale", 0),
        ("guidance_scale", 11),
        ("guidance_scale", 5.5),
        ("num_inference_steps", 0),
        ("num_inference_steps", 51),
        ("num_inference_steps", True),
        ("n", "1"),
        ("response_format", None),
        *[("size", size) for size in ("", "768", "768x", "0x768", "768x1025", "768X768", "768x768\n", 768, [768, 768])],
        ("messages", []),
    ],
    "speech": [
        ("model", "Llama-3.1 8B"),
        ("input", "x"),
        ("input", "x" * 4097),
        ("voice", 1),
        ("stream", "false"),
        *[
            (name, value)
            for name in ("temperature", "exaggeration", "cfg_weight")
            for value in (-0.1, 1.1, "0.5", True)
        ],
        ("seed", 7),
    ],
}


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [(kind, name, value) for kind, fields in WRONG.items() for name, value in fields],
    ids=lambda value: json.dumps(value)[:40],
)
async def test_a_create_call_must_be_as_documented(
    emulator: Emulator, session: aiohttp.ClientSession, kind: str, name: str, value: object
) -> None:
    """A field of the wrong type, out of its bounds or not documented is a bad request, and makes no task."""
    body = json.dumps({**FULL[kind], name: value}).encode()
    assert await refusal(session, path=f"/async/{kind}/create", body=body) == 400
    assert emulator.add_task() == Emulator(seed=7).add_task()  # the first one still


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, body in calls.BODIES.items() for name in body], ids=str
)
async def test_a_create_call_needs_its_required_fields(session: aiohttp.ClientSession, kind: str, name: str) -> None:
    """Without what it needs no task is made, and the answer says which field is missing."""
    body = copy.deepcopy(FULL[kind])
    del body[name]
    code, answer = await send(session, path=f"/async/{kind}/create", body=json.dumps(body).encode())
    assert (code, answer) == (400, {"message": f"body must have required property '{name}'"})


async def test_fates_are_those_of_the_next_tasks(session: aiohttp.ClientSession, emulator: Emulator) -> None:
    """Each fate is used once, by the next task that a request creates; without one a life is drawn as before."""
    emulator.fates.append({"timeline": [(0, "POSTPONED")]})
    emulator.fates.append({"timeline": [(0, "ERROR")]})
    statuses = []
    for kind in ("images", "chat", "chat"):
        _, created = await calls.post(session, f"/async/{kind}/create", calls.BODIES[kind])
        statuses.append((await calls.result(session, created["id"], kind))["status"])
    assert statuses == ["POSTPONED", "ERROR", "CREATED"]
