"""Named prompt templates; a bundle's manifest names the ones its model was trained on.

The intent, the slots and the answer's grammar are those of the Omni-R1 paper (arXiv 2505.20256, section 3)
and its reference code; the wording is ours, except the grounding sentences, which are trained triggers.
"""

from __future__ import annotations

from dataclasses import dataclass

from omni_sdk.errors import BundleError
from omni_sdk.utils.text import format_time

QWEN_SYSTEM = (
    "You are Qwen, a virtual human developed by the Qwen Team, Alibaba Group, capable of perceiving "
    "auditory and visual inputs, as well as generating text and speech."
)
"""The default system turn that Qwen publishes for Qwen2.5-Omni."""

_ANSWER_GRAMMAR = (
    "Reason inside <think> </think>, then give the result inside <answer> </answer> as a JSON list of "
    'objects with the keys "start_time", "end_time" (both \'mm:ss.ff\') and "description". '
    "If nothing in the video matches, the list is empty: []."
)
_REWRITE = (
    "For each moment rewrite the reference into a short description that is enough to find the target "
    "in that single image: say how it looks and where it is, and leave out everything that needs time, "
    "sound or other moments, such as actions and comparisons."
)


@dataclass(frozen=True, slots=True)
class Template:
    """One prompt.

    Attributes:
        text: with the slots {query}, {seconds} (length of the clip as the model is told it) and
            {example} (an answer in the grammar); braces are doubled, as for str.format.
        free_text: the answer is a description in words instead of the JSON list; it then holds for the
            whole clip.
        lower_query: the query is lower-cased.
    """

    text: str
    free_text: bool = False
    lower_query: bool = False


OMNI_R1_FORCE = Template(
    "This video lasts {seconds} seconds. The reference is: {query}\n"
    "Find what it refers to, and choose about 4 moments at which the target is seen best, well spread "
    "over the video and not next to each other. " + _REWRITE + " " + _ANSWER_GRAMMAR + "\n"
    "For example: <think> ... </think> <answer>{example}</answer>"
)
"""The training prompt of Omni-R1 that asks for four spread moments (VIDEO_TIMESTAMP_FORCE)."""

OMNI_R1 = Template(
    "This video lasts {seconds} seconds. The reference is: {query}\n"
    "Find what it refers to, and choose 1 to 4 moments at which the target is seen best. "
    + _REWRITE
    + " "
    + _ANSWER_GRAMMAR
)
"""The variant of Omni-R1 without a fixed count and without an example."""

OMNI_R1_EXAMPLE = Template(
    OMNI_R1.text + "\nFor example: <think> ... </think> <answer>{example}</answer>"
)
"""`OMNI_R1` with an example, as the authors show it in the first samples of each data set."""

REF_AVS = Template(
    "The reference is: {query}\n"
    "First work out which objects make sounds, voices and instruments included, and which object the "
    "reference means. Then describe that object by its looks alone, in a short phrase that finds it in "
    "one image without sound and without words of action. Reason inside <think> </think>, then give "
    "the phrase inside <answer> </answer>.",
    free_text=True,
)
"""The Ref-AVS prompt of Omni-R1: the answer is a phrase, not a list."""

QWEN_ASK = Template("{query}")
"""A plain question, as in Qwen2.5-Omni's own examples."""

NANO = Template("{query}")
"""The nano thinker is trained on the bare query."""

OMNI_R1_GROUND = Template(
    "Given the expression: '{query}', ground all the referred objects with json bboxs",
    lower_query=True,
)
"""The grounding instruction of Omni-R1's training; kept word for word, it is what the model knows."""

REF_AVS_GROUND = Template("Please find the bounding box of '{query}' with json format")
"""The grounding instruction of Omni-R1 for Ref-AVS; kept word for word."""

TEMPLATES = {
    "omni-r1-force": OMNI_R1_FORCE,
    "omni-r1": OMNI_R1,
    "omni-r1-example": OMNI_R1_EXAMPLE,
    "ref-avs": REF_AVS,
    "qwen-ask": QWEN_ASK,
    "nano": NANO,
    "omni-r1-ground": OMNI_R1_GROUND,
    "ref-avs-ground": REF_AVS_GROUND,
}


def template(name: str) -> Template:
    """Return a template; BundleError if there is none of that name."""
    try:
        return TEMPLATES[name]
    except KeyError:
        raise BundleError(f"unknown prompt template {name!r}; known: {sorted(TEMPLATES)}") from None


def render(name: str, query: str, *, seconds: float = 0.0, example: str | None = None) -> str:
    """Fill in a template.

    Args:
        name: of the template.
        query: the question or description; taken as it is, braces and all.
        seconds: length of the clip on the reasoner's clock.
        example: an answer in the grammar to show; None: `example_answer(seconds)`.

    Raises:
        BundleError: no such template.
    """
    chosen = template(name)
    return chosen.text.format(
        query=query.lower() if chosen.lower_query else query,
        seconds=f"{seconds:g}",
        example=example_answer(seconds) if example is None else example,
    )


def example_answer(seconds: float, count: int = 4) -> str:
    """Return an answer in the grammar: `count` instants in the middles of equal parts of the clip.

    The authors draw the example's times at random for each training sample, so that the model does not
    learn to copy them (`omni_training.data.prompts`); in use the same clip always gives the same prompt.
    """
    times = [format_time(seconds * (2 * k + 1) / (2 * count)) for k in range(count)]
    items = (
        f'{{"start_time": "{time}", "end_time": "{time}", "description": "..."}}' for time in times
    )
    return f"[{', '.join(items)}]"
