from __future__ import annotations

import base64
import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omni_sdk.evaluation.html import encode_jpeg, overlay, write_html

HOSTILE = "<script>alert(1)</script>\"'&</dd>"


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data")]


@pytest.fixture
def page(whole: Any, tmp_path: Path) -> str:
    records = {record.key: record for record in whole.evaluation.records()}
    for key, record in records.items():
        records[key] = dataclasses.replace(record, thinking=HOSTILE, answer=HOSTILE)
    path = tmp_path / "report.html"
    write_html(
        whole.results,
        path,
        samples=whole.evaluation.samples,
        predictions=whole.plan.predictions,
        records=records,
        num_clips=2,
    )
    return path.read_text(encoding="utf-8")


def test_the_page_is_self_contained(page: str) -> None:
    parsed = _Page()
    parsed.feed(page)
    assert "script" not in parsed.tags
    assert len(parsed.links) == 16  # two worst, two best, four pictures each
    assert all(link.startswith("data:image/jpeg;base64,") for link in parsed.links)
    assert "default-src 'none'" in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 8


def test_worst_come_first(page: str) -> None:
    worst, best = page.split("<h2>Best clips</h2>")
    heads = [
        [float(value) for value in re.findall(r"<h3>([\d.]+)", part)] for part in (worst, best)
    ]
    assert heads[0] == sorted(heads[0])
    assert heads[1] == sorted(heads[1], reverse=True)
    assert heads[0][-1] <= heads[1][-1]
    assert heads[1][0] == 1.0


def test_pictures_show_frame_and_masks(page: str, whole: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    import io

    data = re.findall(r"base64,([^\"]+)", page)[0]
    picture = np.asarray(image.open(io.BytesIO(base64.b64decode(data))), np.int16)
    sample = whole.evaluation.samples[0]
    assert picture.shape == (*sample.video.size(), 3)
    frame = sample.video.read_frame(0)
    found = np.zeros(frame.shape[:2], np.bool_)
    found[10:30, 10:30] = True
    truth = np.zeros_like(found)
    truth[50:80, 50:80] = True
    drawn = overlay(frame, found, truth)
    assert tuple(drawn[50, 60]) == (255, 255, 255)
    assert np.array_equal(drawn[60, 60], frame[60, 60])
    assert not np.array_equal(drawn[20, 20], frame[20, 20])
    back = np.asarray(image.open(io.BytesIO(encode_jpeg(drawn))), np.int16)
    assert np.abs(back - drawn).mean() < 4
    large = overlay(np.zeros((600, 560, 3), np.uint8), None, np.zeros((600, 560), np.bool_))
    assert large.shape == (300, 280, 3)
