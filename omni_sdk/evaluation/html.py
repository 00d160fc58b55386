"""One self-contained page: the table, what failed, and the worst and best clips with their answers.

Nothing on it comes from elsewhere: pictures are data URLs, and a content policy in the page forbids
everything else. What models and data sets wrote is escaped.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from string import Template

import av
import numpy as np
from numpy.typing import NDArray

from omni_sdk.datasets import images
from omni_sdk.datasets.predictions import prediction_path
from omni_sdk.datasets.records import Sample
from omni_sdk.errors import OmniError
from omni_sdk.evaluation.records import Key, Record
from omni_sdk.evaluation.report import Results, failure_lines, summary_table
from omni_sdk.evaluation.scoring import ScoredExpression, quality
from omni_sdk.media.pixels.resize import resize
from omni_sdk.output.writers import contour, draw_masks
from omni_sdk.utils.files import write_text
from omni_sdk.utils.schema import to_dict

Image = NDArray[np.uint8]
NUM_PICTURES = 4
PICTURE_WIDTH = 280
TRUTH_COLOUR = (255, 255, 255)

_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title><style>
body{font:15px/1.45 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse}th,td{padding:.25em .8em;border-bottom:1px solid #ccc;text-align:right}
th:first-child,td:first-child{text-align:left}
article{border-top:2px solid #ccc;padding:.8em 0}figure{display:inline-block;margin:0 .5em .3em 0}
img{display:block;max-width:280px}figcaption{font-size:12px;color:#666}
dl{display:grid;grid-template-columns:8em 1fr;gap:.1em .8em;margin:.3em 0}dt{color:#666}dd{margin:0}
dd,li{white-space:pre-wrap;overflow-wrap:anywhere}
</style></head><body>
<h1>$title</h1><p>$intro</p>$table$failures
<p>In the pictures the prediction is filled, the truth has a white outline.</p>
$sections</body></html>
""")
_ARTICLE = Template("""<article><h3>$head</h3>$pictures<dl>$facts</dl></article>
""")


def write_html(
    results: Results,
    path: Path,
    *,
    samples: Sequence[Sample],
    predictions: Path,
    records: Mapping[Key, Record] | None = None,
    num_clips: int = 5,
) -> None:
    """Write the page.

    Args:
        results: of a split with masks or without.
        path: the file.
        samples: of the split, one per row of the results.
        predictions: folder of the prediction files.
        records: what was answered, where that is known.
        num_clips: shown of the worst and of the best; 0: none.
    """
    rows = [
        (quality(row), sample, row)
        for sample, row in zip(samples, results.rows, strict=True)
        if row.score is not None
    ]
    rows.sort(key=lambda item: item[0])
    worst = rows[:num_clips]
    best = rows[max(len(worst), len(rows) - num_clips) :][::-1]
    known = records or {}
    sections = []
    for name, part in (("Worst clips", worst), ("Best clips", best)):
        articles = [
            _article(sample, row, known.get((row.video_id, row.expression_id)), predictions)
            for _, sample, row in part
        ]
        if articles:
            sections.append(f"<h2>{name}</h2>\n{''.join(articles)}")
    title = html.escape(f"{results.dataset} {results.split}")
    intro = f"{len(results.rows)} expressions, {len(results.failures)} of them failed (score 0)."
    if results.run:
        intro += f" Models: {results.run['models']['name']}. Statuses: {results.run['statuses']}."
    page = _PAGE.substitute(
        title=title,
        intro=html.escape(intro),
        table=_table(results),
        failures=_failures(results),
        sections="\n".join(sections),
    )
    write_text(path, page)


def overlay(image: Image, found: NDArray[np.bool_] | None, truth: NDArray[np.bool_]) -> Image:
    """Return a small picture of a frame with the prediction filled and the truth outlined.

    Args:
        image: (H, W, 3) uint8 RGB.
        found: (H, W) predicted mask, or None.
        truth: (H, W) true mask.
    """
    fits = found is not None and found.shape == image.shape[:2]
    drawn = draw_masks(image, {1: found}) if fits and found is not None else image.copy()
    thickness = max(1, round(image.shape[1] / PICTURE_WIDTH))
    if truth.shape == image.shape[:2]:
        drawn[contour(truth, thickness)] = TRUTH_COLOUR
    if image.shape[1] <= PICTURE_WIDTH:
        return drawn
    height = max(1, round(image.shape[0] * PICTURE_WIDTH / image.shape[1]))
    return resize(drawn, (height, PICTURE_WIDTH), "bilinear")


def encode_jpeg(image: Image, *, quality: int = 3) -> bytes:
    """Return a picture as a JPEG file.

    Args:
        image: (H, W, 3) uint8 RGB.
        quality: the encoder's quantiser, 2 (best) to 31.
    """
    codec = av.CodecContext.create("mjpeg", "w")
    assert isinstance(codec, av.VideoCodecContext)
    codec.height, codec.width = image.shape[:2]
    codec.pix_fmt = "yuvj444p"
    codec.time_base = Fraction(1, 1)
    codec.options = {"qmin": str(quality), "qmax": str(quality)}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
    packets = codec.encode(frame.reformat(format="yuvj444p")) + codec.encode(None)
    return b"".join(bytes(packet) for packet in packets)


def _article(
    sample: Sample, row: ScoredExpression, record: Record | None, predictions: Path
) -> str:
    assert row.score is not None
    facts = [("question", sample.expression)]
    if row.kind:
        facts.append(("kind", row.kind))
    if record is not None:
        facts += [("reasoning", record.thinking.strip()), ("answer", record.answer.strip())]
        facts += [
            (
                "keyframe",
                f"{k.start_seconds:.2f}-{k.end_seconds:.2f} s, frame {k.frame_index}: {k.description} "
                f"({k.num_objects} found)",
            )
            for k in record.keyframes
        ]
    if row.error:
        facts.append(("failed", row.error))
    numbers = {k: v for k, v in to_dict(row.score).items() if isinstance(v, float)}
    facts.append(("scores", ", ".join(f"{name} {value:.4f}" for name, value in numbers.items())))
    pictures = [_figure(sample, frame, predictions) for frame in _spread(len(sample.video))]
    return _ARTICLE.substitute(
        head=html.escape(f"{quality(row):.3f}  {row.video_id} / {row.expression_id}"),
        pictures="".join(pictures),
        facts="".join(f"<dt>{n}</dt><dd>{html.escape(text or '-')}</dd>" for n, text in facts),
    )


def _figure(sample: Sample, frame: int, predictions: Path) -> str:
    caption = f"frame {sample.video.frame_names[frame]}"
    try:
        path = prediction_path(predictions, sample, frame)
        found = images.read_mask(path) if path.is_file() else None
        picture = overlay(sample.video.read_frame(frame), found, sample.mask_at(frame))
    except OmniError as e:  # a broken file is what the page is to show, not what stops it
        return f"<figure><figcaption>{html.escape(f'{caption}: {e}')}</figcaption></figure>"
    if found is None:
        caption += " (no prediction)"
    data = base64.b64encode(encode_jpeg(picture)).decode("ascii")
    return (
        f'<figure><img alt="" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _spread(num_frames: int) -> list[int]:
    """Return up to four frames spread over a video."""
    places = np.linspace(0, num_frames - 1, min(NUM_PICTURES, num_frames))
    return [int(k) for k in np.unique(np.rint(places))]


def _table(results: Results) -> str:
    head, rows = summary_table(results)
    cells = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><tr>{cells}</tr>{body}</table>"


def _failures(results: Results) -> str:
    if not results.failures:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in failure_lines(results, 100))
    return f"<h2>Failures</h2><ul>{items}</ul>"
