"""A result inside pydantic models and FastAPI answers: result.json, both ways."""

from __future__ import annotations

import json

import numpy as np
import pytest

from omni_sdk.dus.masks import rle_encode
from omni_sdk.dus.tracks import build_tracks
from omni_sdk.media.frames import VideoInfo
from omni_sdk.results import Result
from omni_sdk.stages import FrameMasks, GroundedObject, Keyframe, ObjectMask

pydantic = pytest.importorskip("pydantic")


@pytest.fixture
def result() -> Result:
    mask = np.eye(6, 9, dtype=bool)
    frames = [FrameMasks(t, t / 8, (ObjectMask(1, rle_encode(mask), 1.5),)) for t in range(3)]
    box = np.array([1, 2, 3, 4], np.float32)
    return Result(
        query="q",
        thinking="t",
        answer="a",
        status="found",
        video=VideoInfo("x.mp4", 9, 6, 3, 8.0, 0.375, True),
        keyframes=(Keyframe(0.0, 0.5, 2, 0.25, "a dog", (GroundedObject(1, box, "dog"),)),),
        tracks=build_tracks(frames, {1: "dog"}, (6, 9)),
        source=[np.zeros((6, 9, 3), np.uint8)] * 3,
    )


def test_a_type_adapter_writes_and_reads_result_json(result: Result) -> None:
    adapter = pydantic.TypeAdapter(Result)
    assert adapter.dump_python(result, mode="json") == result.to_dict()
    assert adapter.dump_python(result) == result.to_dict()
    assert json.loads(adapter.dump_json(result)) == result.to_dict()
    assert adapter.validate_python(result) is result
    assert adapter.validate_python(result.to_dict()).to_dict() == result.to_dict()
    assert adapter.validate_json(json.dumps(result.to_dict())).to_dict() == result.to_dict()
    for bad in (result.to_dict() | {"status": "maybe"}, {}, 5):
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_python(bad)
        with pytest.raises(pydantic.ValidationError):
            adapter.validate_json(json.dumps(bad))
    for mode in ("validation", "serialization"):
        assert adapter.json_schema(mode=mode)["type"] == "object"


def test_a_field_of_a_model(result: Result) -> None:
    model = pydantic.create_model("Answer", result=(Result, ...), note=(str, ""))
    answer = model(result=result)
    assert answer.result is result
    assert answer.model_dump(mode="json") == {"result": result.to_dict(), "note": ""}
    assert model.model_validate_json(answer.model_dump_json()).result.to_dict() == result.to_dict()


def test_fastapi_answers_with_a_result(result: Result) -> None:
    fastapi = pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    from fastapi.testclient import TestClient

    app = fastapi.FastAPI()

    def ask() -> object:
        return result

    def count(body: Result) -> int:
        return len(body.tracks)

    app.get("/ask", response_model=Result)(ask)
    count.__annotations__["body"] = Result  # annotations are text in this file
    app.post("/count")(count)
    client = TestClient(app)
    reply = client.get("/ask")
    assert reply.status_code == 200
    assert reply.json() == result.to_dict()
    assert client.post("/count", json=reply.json()).json() == 1
    assert client.post("/count", json=reply.json() | {"schema_version": 9}).status_code == 422
    assert client.get("/openapi.json").status_code == 200
