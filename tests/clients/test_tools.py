"""Calls of tools with the `openai` package: asked for, streamed, and answered with what the tools said."""

import json

import openai
import pytest

import serving
import spoken

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city.", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}},
]
# It refuses a conversation in which a tool's answer belongs to no call, or a call or a tool is not as it was given.
TEMPLATE = (
    "{% if tools %}{% if tools[0].function.parameters.required != ['city'] %}{{ raise_exception('tools') }}{% endif %}"
    "{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}{{ message.content }}"
    "{% for call in message.tool_calls or [] %}{{ call.function.arguments }}{% endfor %}"
    "{% if message.role == 'tool' and message.tool_call_id != messages[1].tool_calls[loop.index0 - 2].id %}"
    "{{ raise_exception('this answer belongs to no call') }}{% endif %}{% endfor %}"
    "{% if messages[-1].role == 'tool' %}<answer>{% elif tools %}<call>{% else %}<plain>{% endif %}"
)
SAID = {
    "<call>": [
        "Let me ", "see.\n<tool", '_call>\n{"name": "get_wea', 'ther", "arguments": {"city": "Par', 'is"}}\n</tool_c',
        'all><tool_call>{"name": "now"}</to', "ol_call>",
    ],
    "<answer>": ["It is ", "sunny."],
    "<plain>": ["I cannot ", "know."],
}
QUESTION = [{"role": "user", "content": "What is the weather in Paris?"}]
ASKED = {"model": "spoken", "messages": QUESTION, "tools": TOOLS}


@pytest.fixture(scope="module", params=["up", "two"])
def client(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"tools-{request.param}")
    running = serving.Server(request.param, folder, {"spoken": spoken.write(folder / "spoken", TEMPLATE, SAID)})
    with openai.OpenAI(base_url=f"http://{running.http}/v1", api_key="none is needed", max_retries=0) as one:
        yield one
    running.stop()


def calls(message):
    return [(call.type, call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]


WANTED = [("function", "get_weather", {"city": "Paris"}), ("function", "now", {})]


def test_a_model_calls_tools_and_is_told_what_they_say(client):
    first = client.chat.completions.create(**ASKED)
    choice = first.choices[0]
    assert (choice.finish_reason, choice.message.content, calls(choice.message)) == ("tool_calls", "Let me see.\n", WANTED)
    ids = [call.id for call in choice.message.tool_calls]
    assert len(set(ids)) == 2
    told = [{"role": "tool", "tool_call_id": name, "content": said} for name, said in zip(ids, ["sun", "noon"], strict=True)]
    second = client.chat.completions.create(**ASKED | {"messages": [*QUESTION, choice.message, *told]})
    assert (second.choices[0].finish_reason, second.choices[0].message.content) == ("stop", "It is sunny.")
    assert not second.choices[0].message.tool_calls
    told[1]["tool_call_id"] = "another"
    with pytest.raises(openai.BadRequestError, match="this answer belongs to no call"):
        client.chat.completions.create(**ASKED | {"messages": [*QUESTION, choice.message, *told]})


def test_calls_are_streamed(client):
    with client.chat.completions.stream(**ASKED) as stream:
        events = list(stream)
        choice = stream.get_final_completion().choices[0]
    assert (choice.finish_reason, choice.message.content, calls(choice.message)) == ("tool_calls", "Let me see.\n", WANTED)
    said = "".join(event.delta for event in events if event.type == "content.delta")
    assert said == "Let me see.\n"


def test_whether_tools_may_be_called_is_the_client_s_choice(client):
    for settings in ({"tool_choice": "none"}, {"tools": []}, {"tools": openai.NOT_GIVEN}):
        choice = client.chat.completions.create(**ASKED | settings).choices[0]
        assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", "I cannot know.", None)
    assert client.chat.completions.create(**ASKED, tool_choice="auto").choices[0].finish_reason == "tool_calls"
    for choice in ("required", {"type": "function", "function": {"name": "now"}}, "always"):
        with pytest.raises(openai.BadRequestError, match="'tool_choice' must be auto or none"):
            client.chat.completions.create(**ASKED, tool_choice=choice)
    with pytest.raises(openai.BadRequestError, match="'tools' must be an array"):
        client.chat.completions.create(**ASKED | {"tools": {"type": "function"}})
