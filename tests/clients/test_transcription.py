"""Transcription over OpenAI's API with the openai package, and over Triton's."""

import http.client
import io
import json
import re
import wave

import numpy as np
import openai
import pytest
import tritonclient.grpc

import serving

SPEECH = serving.ROOT / "models/src/whisper/sample.ogg"
CLIPS = serving.SAMPLES / "librivox"
EXPECTED = json.loads((serving.ROOT / "tests/data/expected/whisper-tiny-en.json").read_text())
CLIP, LONG = EXPECTED["clips"][0], EXPECTED["long"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = serving.MODELS / "whisper-tiny-en"
    if not folder.is_dir():
        pytest.fail(f"{folder} is missing, make it with: scripts/fetch-models whisper-tiny-en --to {serving.MODELS}")
    halves = tmp_path_factory.mktemp("halves")
    halves = {f"whisper-{one}": serving.in_precision(folder, one, halves / one) for one in ("f16", "bf16")}
    return {"whisper-tiny-en": folder, **halves}


@pytest.fixture(scope="module", params=["up", "two"])
def transcribing(request, tmp_path_factory, models):
    running = serving.Server(request.param, tmp_path_factory.mktemp(f"transcribing-{request.param}"), models)
    yield running
    running.stop()


@pytest.fixture
def client(transcribing):
    with openai.OpenAI(base_url=f"http://{transcribing.http}/v1", api_key="none is needed", max_retries=0) as one:
        yield one


@pytest.fixture
def transcribe(client):
    def one(file=None, **settings):
        settings = {"model": "whisper-tiny-en", **settings}
        return client.audio.transcriptions.create(file=("speech.ogg", file or SPEECH.read_bytes()), **settings)

    return one


@pytest.fixture(scope="module")
def clips():
    if not CLIPS.is_dir():
        pytest.fail(f"{CLIPS} is missing, make it with: scripts/fetch-models librivox --to {serving.SAMPLES}")
    return [(CLIPS / clip["name"]).read_bytes() for clip in EXPECTED["clips"]]


def minute(clips):
    """Clips one after the other in one file, longer than the window that the model hears at once."""
    out = io.BytesIO()
    with wave.open(out, "wb") as joined:
        joined.setparams((1, 2, 16000, 0, "NONE", ""))
        for clip in LONG["clips"]:
            with wave.open(io.BytesIO(clips[clip])) as one:
                joined.writeframes(one.readframes(one.getnframes()))
    return out.getvalue()


def test_a_clip(transcribe):
    answer = transcribe()
    assert answer.text == CLIP["text"].strip()
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 8)


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_half_precision(transcribe, precision):
    assert transcribe(model=f"whisper-{precision}").text == CLIP["text"].strip()


def test_a_path_as_the_package_reads_it(client):
    answer = client.audio.transcriptions.create(model="whisper-tiny-en", file=SPEECH, language="en")
    assert answer.text == CLIP["text"].strip()


def test_segments_of_a_minute(transcribe, clips):
    answer = transcribe(minute(clips), response_format="verbose_json", timestamp_granularities=["segment"], temperature=0)
    assert (answer.task, answer.language, answer.text) == ("transcribe", "english", LONG["text"].strip())
    assert abs(answer.duration - LONG["seconds"]) < 0.1
    assert [segment.text for segment in answer.segments] == [text for _, _, text in LONG["segments"]]
    for segment, (start, end, _) in zip(answer.segments, LONG["segments"], strict=True):
        assert abs(segment.start - start) < 0.1 and abs(segment.end - end) < 0.1
        assert segment.temperature == 0 and segment.avg_logprob < 0 and 0 <= segment.no_speech_prob < 1


def test_text_and_subtitles(transcribe):
    text = CLIP["text"].strip()
    assert transcribe(response_format="text") == text + "\n"
    said = re.escape(text) + "\n\n"
    assert re.fullmatch(r"WEBVTT\n\n00:00:00\.\d{3} --> 00:00:0[67]\.\d{3}\n" + said, transcribe(response_format="vtt"))
    assert re.fullmatch(r"1\n00:00:00,\d{3} --> 00:00:0[67],\d{3}\n" + said, transcribe(response_format="srt"))


def test_a_prompt_spells_names(transcribe):
    assert "Dashwoode" not in transcribe().text
    assert "Dashwoode" in transcribe(prompt="Mr. John Dashwoode, Mrs. Dashwoode and the Dashwoodes.").text


def test_errors_have_their_classes_and_fields(transcribe):
    with pytest.raises(openai.NotFoundError, match="nothing"):
        transcribe(model="nothing")
    for field, settings in [
        ("model", {"model": "identity"}),
        ("file", {"file": b"no audio at all"}),
        ("language", {"language": "de"}),
        ("temperature", {"temperature": 1.5}),
        ("response_format", {"response_format": "diarized_json"}),
        ("timestamp_granularities", {"response_format": "verbose_json", "timestamp_granularities": ["word"]}),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            transcribe(**settings)
        assert refused.value.param == field and field in refused.value.message.replace("audio", "file"), refused.value


def test_what_is_no_form_is_refused(transcribing):
    connection = http.client.HTTPConnection(transcribing.http)
    for kind, body in [("application/json", "{}"), ("multipart/form-data; boundary=b", "--b\r\n")]:
        connection.request("POST", "/v1/audio/transcriptions", body, {"Content-Type": kind})
        answer = connection.getresponse()
        assert answer.status == 400 and json.load(answer)["error"]["type"] == "invalid_request_error"
    connection.close()


def test_files_too_large_are_refused(start, models):
    one = start("up", models, arguments=["--max-message-mb", "1"])
    client = openai.OpenAI(base_url=f"http://{one.http}/v1", api_key="none is needed", max_retries=0)
    with pytest.raises(openai.APIStatusError, match="--max-message-mb") as refused:
        client.audio.transcriptions.create(model="whisper-tiny-en", file=("long.wav", bytes(2 << 20)))
    assert refused.value.status_code == 413
    client.close()


def test_files_together_over_triton(transcribing, clips):
    files = np.array(clips, dtype=np.object_)
    audio = tritonclient.grpc.InferInput("audio", [len(files)], "BYTES")
    audio.set_data_from_numpy(files)
    with tritonclient.grpc.InferenceServerClient(transcribing.grpc) as triton:
        wanted = [tritonclient.grpc.InferRequestedOutput("text")]
        text = triton.infer("whisper-tiny-en", [audio], outputs=wanted).as_numpy("text")
        assert [one.decode() for one in text] == [clip["text"] for clip in EXPECTED["clips"]]
        with pytest.raises(tritonclient.utils.InferenceServerException, match="parameter 'language'"):
            triton.infer("whisper-tiny-en", [audio], parameters={"language": "de"})
