"""Stories from a file, the worlds, a fake chat endpoint on this machine, and a local model."""

import http.server
import importlib.util
import json
import sys
import threading

import pytest

from experiments.painting import stories, story_models
from geojax.methods.world_story import room_story

GOOD = {"frames": [0, 3], "prompts": ["a kitchen", "a cellar"]}
SETTINGS = {
    "prompt": "a walk",
    "frames": 5,
    "seed": 1,
    "story": None,
    "story_endpoint": None,
    "story_model": None,
    "story_lm": None,
    "story_key": None,
    "story_every": 3,
    "story_timeout": 5.0,
    "story_cache": "not asked",
}


class Server(http.server.ThreadingHTTPServer):
    """Answers in turn what it is given; keeps what it was asked."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.asked = [], []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), body))
        status, answer = self.server.answers.pop(0)
        if isinstance(answer, str):
            answer = {"choices": [{"message": {"role": "assistant", "content": answer}}]}
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        if status == 302:
            self.send_header("Location", self.server.url + "/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(server, tmp_path):
    chat = {"story_endpoint": server.url, "story_model": "talker"}
    return {**SETTINGS, **chat, "story_cache": str(tmp_path / "cache")}


def test_an_endpoint_is_asked_once_and_then_the_cache(server, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("TALKER_KEY", " secret ")
    server.answers.append((200, f"Certainly!\n```json\n{json.dumps(GOOD)}\n```\nEnjoy."))
    told = stories.schedule_of({**settings, "story_key": "TALKER_KEY"})
    assert told.to_dict() == GOOD
    path, headers, body = server.asked[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == "Bearer secret"
    assert (body["model"], body["seed"]) == ("talker", 1)
    question = body["messages"][-1]["content"]
    assert "Theme: a walk" in question and "[0, 3]" in question and "2 prompts" in question
    # Now offline, and without the key: the server has no second answer.
    assert stories.schedule_of(settings) == told
    assert len(server.asked) == 1
    [kept] = (tmp_path / "cache").glob("*.json")
    assert "secret" not in kept.read_text()
    # Another question is another file.
    server.answers.append((200, json.dumps(GOOD)))
    stories.schedule_of({**settings, "seed": 2})
    assert len(list((tmp_path / "cache").glob("*.json"))) == 2
    kept.write_text('{"answer": 5}')
    with pytest.raises(ValueError, match=f"{kept.name} is damaged.*remove it"):
        stories.schedule_of(settings)


def test_an_answer_that_is_no_schedule_is_refused_and_asked_again(server, settings):
    server.answers += [
        (200, "I cannot."),
        (200, '{"frames": [0, 3], "prompts": ["a kitchen", ""]}'),
        (200, json.dumps(GOOD)),
    ]
    assert stories.schedule_of(settings).to_dict() == GOOD
    last = server.asked[-1][2]["messages"]
    assert [message["role"] for message in last] == ["system", "user"] + ["assistant", "user"] * 2
    assert "prompts[1] must be a text that is not blank" in last[-1]["content"]


@pytest.mark.parametrize(
    "answer",
    [
        "__import__('os').system('touch evaluated')",
        '{"frames": [0], "prompts": ["one"]}',
        '{"frames": [0, 3], "prompts": ["a", "b"], "code": "x"}',
    ],
)
def test_answers_that_stay_wrong_end_in_an_error_and_no_file(
    server, settings, answer, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    server.answers += [(200, answer)] * 3
    with pytest.raises(ValueError, match="3 answers of the model were no schedule; the last: "):
        stories.schedule_of(settings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "answer", "error", "message"),
    [
        (401, b"no such key", OSError, "answered 401 .*no such key"),
        (302, b"", OSError, "answered 302"),
        (200, b"<html>", ValueError, "did not answer as a chat endpoint"),
        (200, {"choices": []}, ValueError, "did not answer as a chat endpoint"),
        (200, {"choices": [{"message": {"content": None}}]}, ValueError, "answered None"),
        (200, b"x" * (story_models.MAX_BYTES + 10), ValueError, "answered more than"),
    ],
)
def test_an_endpoint_that_fails_is_named(server, settings, status, answer, error, message):
    server.answers.append((status, answer))
    with pytest.raises(error, match=message):
        stories.schedule_of(settings)
    assert len(server.asked) == 1  # a redirect is not followed


def test_endpoints_that_cannot_be_asked(server, settings, monkeypatch):
    monkeypatch.delenv("TALKER_KEY", raising=False)
    with pytest.raises(ValueError, match="--story_key=TALKER_KEY: that environment"):
        stories.schedule_of({**settings, "story_key": "TALKER_KEY"})
    with pytest.raises(ValueError, match="must begin with http"):
        stories.schedule_of({**settings, "story_endpoint": "file:///etc"})
    with pytest.raises(OSError, match="cannot be asked"):
        stories.schedule_of({**settings, "story_endpoint": "http://127.0.0.1:9/v1"})


def test_a_story_from_a_file_or_the_worlds(tmp_path):
    file = tmp_path / "story.json"
    file.write_text(json.dumps(GOOD))
    settings = {**SETTINGS, "prompt": None}
    assert stories.schedule_of({**settings, "story": str(file)}).to_dict() == GOOD
    assert stories.schedule_of({**settings, "story": "rooms"}) == room_story(1, 2, 3)
    file.write_bytes(b'{"frames": [0], "prompts": ["\xff"]}')
    with pytest.raises(ValueError, match=r"--story=.*story\.json: "):
        stories.schedule_of({**settings, "story": str(file)})
    with pytest.raises(FileNotFoundError, match="neither a file nor one of objects, rooms"):
        stories.schedule_of({**settings, "story": "room"})
    constant = stories.schedule_of({**SETTINGS, "prompt": "a room"})
    assert constant.to_dict() == {"frames": [0], "prompts": ["a room"]}


def test_a_local_model_without_pytorch_or_a_folder(tmp_path, monkeypatch):
    settings = {**SETTINGS, "story_cache": str(tmp_path / "cache")}
    with pytest.raises(FileNotFoundError, match=r"--story_lm=.*absent is not a folder"):
        stories.schedule_of({**settings, "story_lm": str(tmp_path / "absent")})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError, match=r"needs PyTorch: pip install 'geojax\[torch\]'"):
        stories.schedule_of({**settings, "story_lm": str(tmp_path)})
