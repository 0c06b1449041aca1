"""Image networks in process: images per second. bench_vision.py onnxruntime|torch NETWORK MODELS [reps] [threads]

NETWORK is efficientnet-lite0, resnet18 or resnet50 (pip install onnxruntime torch torchvision onnx
efficientnet-lite-pytorch); MODELS is where scripts/fetch-models has put efficientnet-lite0, the ResNets have drawn weights.
The input is a prepared tensor: decoding and resizing are not in it. One JSON line."""
import io, json, pathlib, statistics, sys, time
import numpy as np, torch

kind, name, models = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
reps = int(sys.argv[4]) if len(sys.argv) > 4 else 30
threads = int(sys.argv[5]) if len(sys.argv) > 5 else 2
torch.set_num_threads(threads)
if name == "efficientnet-lite0":
    from efficientnet_lite_pytorch import EfficientNet
    from safetensors.torch import load_file
    network = EfficientNet.from_name(name)
    network.load_state_dict(load_file(models / name / "model.safetensors"))
else:
    import torchvision
    network = getattr(torchvision.models, name)()
network.eval()

if kind == "onnxruntime":
    import onnxruntime
    file = io.BytesIO()
    axes = {"x": {0: "n"}, "y": {0: "n"}}
    torch.onnx.export(network, torch.zeros(1, 3, 224, 224), file, input_names=["x"], output_names=["y"], dynamic_axes=axes, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])
    run = lambda x: session.run(None, {"x": x})
else:
    network = network.to(memory_format=torch.channels_last)
    run = lambda x: network(torch.from_numpy(x).contiguous(memory_format=torch.channels_last))

out = {"kind": kind, "network": name, "threads": threads}
with torch.inference_mode():
    for batch in (1, 8):
        x = np.random.default_rng(1).standard_normal((batch, 3, 224, 224), dtype="f")
        run(x), run(x)
        times = []
        for _ in range(reps):
            start = time.perf_counter()
            run(x)
            times.append(time.perf_counter() - start)
        out[f"batch {batch}"] = {"median": round(batch / statistics.median(times), 1), "best": round(batch / min(times), 1)}
print(json.dumps(out))
