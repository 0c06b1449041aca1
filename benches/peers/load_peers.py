#!/usr/bin/env python3
"""Starts one peer after another on loopback, loads it with third-party clients, writes results/*.json.

  $PEERS_HOME/triton/bin/python load_peers.py [server ...] [--reps 3] [--secs 4] [--conc 1,16,64]

Clients: h2load (C++, nghttp2) for gRPC (h2c, a pre-encoded ModelInfer frame) and for HTTP/1.1;
perf_analyzer (C++) and tritonclient.grpc.aio where the server speaks the Open Inference Protocol.
Each cell records req/s, p50/p99, CPU time of the server's processes per request, the client's CPU use,
and what the rest of the machine burned meanwhile ("other", the noise). Set MEASURE_LOCK to a file to
take an exclusive lock round each timed run.
"""
import argparse, contextlib, fcntl, json, os, pathlib, re, signal, statistics, struct, subprocess, sys, tempfile, time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
P = pathlib.Path(os.environ.get("PEERS_HOME", HERE / ".peers"))
NICE = 0
TICK = os.sysconf("SC_CLK_TCK")
DATA = [float(i) for i in range(16)]


def py(venv):
    return str(P / venv / "bin/python")


def grpc_body(model, shape):
    from tritonclient.grpc import service_pb2 as pb
    r = pb.ModelInferRequest(model_name=model)
    i = r.inputs.add()
    i.name, i.datatype = "INPUT0", "FP32"
    i.shape.extend(shape)
    r.outputs.add().name = "OUTPUT0"
    r.raw_input_contents.append(struct.pack("<16f", *DATA))
    b = r.SerializeToString()
    return b"\0" + struct.pack(">I", len(b)) + b


def json_body(shape=(1, 16)):
    return json.dumps({"inputs": [{"name": "INPUT0", "shape": list(shape), "datatype": "FP32", "data": DATA}]}).encode()


def ids_body(shape):
    ids = [101] + [2000 + 37 * k % 20000 for k in range(shape[1] - 2)] + [102]
    return json.dumps({"inputs": [{"name": "input_ids", "shape": list(shape), "datatype": "INT64", "data": ids}]}).encode()


GT = "http://127.0.0.1:18001/inference.GRPCInferenceService/ModelInfer"
GR = "http://127.0.0.1:18101/inference.GRPCInferenceService/ModelInfer"


GO = "http://127.0.0.1:18601/inference.GRPCInferenceService/ModelInfer"
HTTP_OF = {"127.0.0.1:18001": "127.0.0.1:18000", "127.0.0.1:18601": "127.0.0.1:18600"}  # the same server's other port


def tv2(m):
    return f"http://127.0.0.1:18000/v2/models/{m}/infer"


def triton_cells(m, shape, extra=()):
    return [(f"{m} gRPC h2load", "h2grpc", GT, m, shape), (f"{m} HTTP-JSON h2load", "h1", tv2(m), None, shape),
            (f"{m} gRPC perf_analyzer", "pa", GT, m, shape), *extra]


def orion_cells(processes):
    name, http = f"orion {processes} identity", "http://127.0.0.1:18600/v2/models/identity/infer"
    return [(f"{name} gRPC h2load", "h2grpc", GO, "identity", (1, 16)), (f"{name} HTTP-JSON h2load", "h1", http, None, (1, 16)),
            (f"{name} gRPC perf_analyzer", "pa", GO, "identity", (1, 16)),
            (f"{name} HTTP-binary perf_analyzer", "pahttp", GO, "identity", (1, 16))]


SERVERS = {
    "orion": dict(cmd=[str(HERE / "serve_orion.sh"), "one"], env={}, cells=orion_cells("one")),
    "orion-two": dict(cmd=[str(HERE / "serve_orion.sh"), "two"], env={}, cells=orion_cells("two")),
    "triton-c": dict(cmd=[str(HERE / "serve_triton.sh")], env={"TRITON_MODELS": "c_identity"},
                     cells=triton_cells("c_identity", (1, 16), [
                         ("c_identity gRPC tritonclient.aio", "aio", GT, "c_identity", (1, 16)),
                         ("c_identity HTTP-binary perf_analyzer", "pahttp", GT, "c_identity", (1, 16))])),
    "triton-core": dict(cmd=[str(HERE / "serve_triton.sh")], env={"TRITON_MODELS": "c_identity"},
                        cells=triton_cells("c_identity", (1, 16))),
    "triton-c-batch": dict(cmd=[str(HERE / "serve_triton.sh")], env={"TRITON_MODELS": "c_identity_batch"},
                           cells=triton_cells("c_identity_batch", (1, 16))[:1]),
    "triton-c-ens": dict(cmd=[str(HERE / "serve_triton.sh")], env={"TRITON_MODELS": "c_ens2"},
                         cells=triton_cells("c_ens2", (1, 16))[:1]),
    "triton-py": dict(cmd=[str(HERE / "serve_triton.sh")], env={"TRITON_MODELS": "py_identity"},
                      cells=triton_cells("py_identity", (1, 16))),
    "triton-py-batch": dict(cmd=[str(HERE / "serve_triton.sh")], env={"TRITON_MODELS": "py_identity_batch"},
                            cells=triton_cells("py_identity_batch", (1, 16))[:1]),
    "triton-py-ens": dict(cmd=[str(HERE / "serve_triton.sh")], env={"TRITON_MODELS": "ens2"},
                          cells=triton_cells("ens2", (1, 16))[:1]),
    "pytriton-nobatch": dict(cmd=[py("triton"), str(HERE / "serve_pytriton.py")], env={"MODE": "nobatch"},
                             cells=triton_cells("pt_identity", (1, 16))[:2]),
    "pytriton-batch": dict(cmd=[py("triton"), str(HERE / "serve_pytriton.py")], env={"MODE": "batch"},
                           cells=triton_cells("pt_identity", (1, 16))[:1]),
    "ray-raw": dict(cmd=[py("ray"), str(HERE / "serve_ray.py")], env={"APP": "raw"},
                    cells=[("ray serve HTTP raw echo h2load", "h1", "http://127.0.0.1:18100/", None, (1, 16))]),
    "ray-v2": dict(cmd=[py("ray"), str(HERE / "serve_ray.py")], env={"APP": "v2"},
                   cells=[("ray serve HTTP-JSON h2load", "h1", "http://127.0.0.1:18100/", None, (1, 16))]),
    "ray-batch": dict(cmd=[py("ray"), str(HERE / "serve_ray.py")], env={"APP": "batch"},
                      cells=[("ray serve @serve.batch HTTP-JSON h2load", "h1", "http://127.0.0.1:18100/", None, (1, 16))]),
    "ray-grpc": dict(cmd=[py("ray"), str(HERE / "serve_ray.py")], env={"APP": "grpc", "PYTHONPATH": str(HERE / "oip_shim")},
                     cells=[("ray serve gRPC h2load", "h2grpc", GR, "m", (1, 16))]),
    "mosec-v2": dict(cmd=[py("small"), str(HERE / "serve_mosec.py"), "--address", "127.0.0.1", "--port", "18200"],
                     env={"KIND": "v2"}, cells=[("mosec HTTP-JSON h2load", "h1", "http://127.0.0.1:18200/inference", None, (1, 16))]),
    "mosec-raw": dict(cmd=[py("small"), str(HERE / "serve_mosec.py"), "--address", "127.0.0.1", "--port", "18200"],
                      env={"KIND": "raw"}, cells=[("mosec HTTP raw echo h2load", "h1", "http://127.0.0.1:18200/inference", None, (1, 16))]),
    "mosec-batch": dict(cmd=[py("small"), str(HERE / "serve_mosec.py"), "--address", "127.0.0.1", "--port", "18200"],
                        env={"KIND": "batch"}, cells=[("mosec dyn-batch HTTP-JSON h2load", "h1", "http://127.0.0.1:18200/inference", None, (1, 16))]),
    "litserve": dict(cmd=[py("small"), str(HERE / "serve_litserve.py")], env={},
                     cells=[("litserve HTTP-JSON h2load", "h1", "http://127.0.0.1:18300/predict", None, (1, 16))]),
    "litserve-batch": dict(cmd=[py("small"), str(HERE / "serve_litserve.py")], env={"BATCH": "1"},
                           cells=[("litserve batched HTTP-JSON h2load", "h1", "http://127.0.0.1:18300/predict", None, (1, 16))]),
    "bentoml": dict(cmd=[py("small"), str(HERE / "serve_bentoml.py")], env={},
                    cells=[("bentoml HTTP-JSON h2load", "h1", "http://127.0.0.1:18400/infer", None, (1, 16))]),
}


for _L in (32, 128):
    SERVERS[f"ray-minilm-{_L}"] = dict(cmd=[py("ml"), str(HERE / "serve_ray_minilm.py")], env={},
                                       cells=[(f"MiniLM {_L} tok ray @serve.batch h2load", "ids", "http://127.0.0.1:18500/", None, (1, _L))])


def tagged(tag):
    pids, needle = [], f"PEER_TAG={tag}".encode()
    for d in os.listdir("/proc"):
        if d.isdigit():
            with contextlib.suppress(OSError):
                if needle in open(f"/proc/{d}/environ", "rb").read().split(b"\0"):
                    pids.append(int(d))
    return pids


def cpu_of(pids):
    t = 0
    for p in pids:
        with contextlib.suppress(OSError):
            f = open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()
            t += int(f[11]) + int(f[12])
    return t / TICK


def mem_of(pids):
    rss = pss = 0
    for p in pids:
        with contextlib.suppress(OSError):
            s = open(f"/proc/{p}/smaps_rollup").read()
            rss += int(re.search(r"^Rss:\s+(\d+)", s, re.M)[1])
            pss += int(re.search(r"^Pss:\s+(\d+)", s, re.M)[1])
    return round(rss / 1024), round(pss / 1024)


def busy():
    f = [int(x) for x in open("/proc/stat").readline().split()[1:]]
    return (sum(f[:8]) - f[3] - f[4]) / TICK


@contextlib.contextmanager
def lock():
    path = os.environ.get("MEASURE_LOCK")
    if not path:
        yield
        return
    with open(path, "a") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def probe(cell):
    _, kind, url, model, shape = cell
    if kind in ("h2grpc", "pa", "pahttp", "aio"):
        import numpy as np, tritonclient.grpc as g
        c = g.InferenceServerClient(url.split("/")[2])
        try:
            i = g.InferInput("INPUT0", list(shape), "FP32")
            i.set_data_from_numpy(np.array([DATA], dtype=np.float32))
            r = c.infer(model or "m", [i], client_timeout=10).as_numpy("OUTPUT0")
            return r is not None and r.reshape(-1).tolist() == DATA
        finally:
            c.close()
    body = ids_body(shape) if kind == "ids" else json_body(shape)
    q = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(q, timeout=10) as r:
        b = r.read()
        if r.status != 200:
            return False
        if b == body:
            return True
        d = json.loads(b)["outputs"][0]["data"]
        if kind == "ids":
            return len(d) == 384 and abs(sum(x * x for x in d) - 1) < 1e-3
        return d == DATA


def prio():
    """In the child: the asked-for niceness. With autogroup scheduling niceness counts only inside a session, so
    give the session the same weight; applies to our own sessions (server's and, once, this script's)."""
    if NICE:
        os.nice(NICE)
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/autogroup").write_text(str(NICE))


def pct(v, q):
    return v[min(len(v) - 1, int(len(v) * q))] if v else None


def run_client(cell, conc, secs, tmp):
    """-> dict(rps, p50_us, p99_us, client_cpu_s, wall_s, err)"""
    _, kind, url, model, shape = cell
    host = url.split("/")[2]
    env = dict(os.environ)
    if kind in ("h2grpc", "h1", "ids"):
        body = tmp / "body"
        log = tmp / "log"
        log.unlink(missing_ok=True)
        if kind == "h2grpc":
            body.write_bytes(grpc_body(model, shape))
            c = {1: 1, 16: 4, 64: 8}.get(conc, max(1, conc // 8))
            a = ["h2load", "-c", str(c), "-m", str(max(1, conc // c)), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        else:
            body.write_bytes(ids_body(shape) if kind == "ids" else json_body(shape))
            a = ["h2load", "--h1", "-c", str(conc), "-m", "1", "-H", "content-type: application/json"]
        a += ["-t", "1", "-D", str(secs), "--warm-up-time", "1", "-d", str(body), "--log-file", str(log), url]
    elif kind in ("pa", "pahttp"):
        env["LD_LIBRARY_PATH"] = str(next(P.glob("triton/lib/python3.*/site-packages/nvidia/cuda_runtime/lib")))
        a = [str(P / "pa/perf_analyzer"), "-m", model, "-u", host if kind == "pa" else HTTP_OF[host],
             "-i", "grpc" if kind == "pa" else "http", "--shape", "INPUT0:" + ",".join(map(str, shape)),
             "--concurrency-range", str(conc), "--measurement-interval", str(secs * 500), "--stability-percentage", "999", "--percentile", "99"]
        if "batch" in model or "ens" in model:
            a[a.index("--shape") + 1] = "INPUT0:16"
    else:
        a = [py("triton"), str(HERE / "load_aio.py"), host, model or "m", str(conc), str(secs)]
    t0 = time.time()
    pr = subprocess.Popen(a, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env, text=True, preexec_fn=prio)
    out = pr.stdout.read()
    _, st, ru = os.wait4(pr.pid, 0)
    pr.returncode = st
    wall = time.time() - t0
    r = dict(client_cpu_s=ru.ru_utime + ru.ru_stime, wall_s=wall, err=None)
    if kind in ("h2grpc", "h1", "ids"):
        lat, bad = [], 0
        for ln in open(log):
            f = ln.split("\t")
            if f[1] == "200":
                lat.append(int(f[2]))
            else:
                bad += 1
        lat.sort()
        m = re.search(r"finished in [\d.]+\w*, ([\d.]+) req/s", out)
        b = re.search(r"\((\d+)\) data", out)
        r.update(rps=float(m[1]) if m else 0, p50_us=pct(lat, .5), p99_us=pct(lat, .99), n=len(lat))
        if bad or not lat or (b and int(b[1]) / max(1, len(lat)) < 60):
            r["err"] = f"bad={bad} n={len(lat)} bytes={b and b[1]}: " + out[-300:]
    elif kind in ("pa", "pahttp"):
        m = re.search(r"Throughput: ([\d.]+) infer/sec", out)
        r.update(rps=float(m[1]) if m else 0)
        for q in (50, 99):
            x = re.search(rf"p{q} latency: (\d+) usec", out)
            r[f"p{q}_us"] = int(x[1]) if x else None
        if not m:
            r["err"] = out[-400:]
    else:
        try:
            r.update(json.loads(out.strip().splitlines()[-1]))
        except Exception:
            r["err"] = out[-400:]
    return r


def med(xs):
    xs = [x for x in xs if x is not None]
    return statistics.median(xs) if xs else None


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("servers", nargs="*")
    ap.add_argument("--reps", type=int, default=3)
    ap.add_argument("--secs", type=int, default=4)
    ap.add_argument("--conc", default="1,16,64")
    ap.add_argument("--nice", type=int, default=0, help="priority of server and client (negative needs root)")
    ap.add_argument("--quiet", type=float, default=0.3, help="other_cores below which a run counts as quiet")
    ap.add_argument("--extra", type=int, default=2, help="extra runs allowed per cell when noisy; the quietest REPS are kept")
    ap.add_argument("--probe-only", action="store_true", help="start, check answers, memory; no load, no lock, nothing written")
    a = ap.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped with us
    global NICE
    NICE = a.nice
    out = HERE / "results"
    out.mkdir(exist_ok=True)
    unknown = [name for name in a.servers if name not in SERVERS]
    if unknown:
        ap.error(f"unknown: {', '.join(unknown)}; known: {', '.join(SERVERS)}")
    for name in a.servers or list(SERVERS):
        s = SERVERS[name]
        tag = f"{name}-{os.getpid()}"
        res = dict(server=name, date=time.strftime("%F %T"), cells=[])
        tmp = pathlib.Path(tempfile.mkdtemp())
        logf = open(tmp / "server.log", "w")
        env = {**os.environ, **s["env"], "PEER_TAG": tag, "PEERS_HOME": str(P), "PYTHONDONTWRITEBYTECODE": "1",
               "RAY_USAGE_STATS_ENABLED": "0",
               "RAY_worker_niceness": "0",  # Ray's default of 15 would let anything else on the machine go first
               "BENTOML_DO_NOT_TRACK": "1", "DO_NOT_TRACK": "1"}
        with contextlib.nullcontext() if a.probe_only else lock():
            t0 = time.time()
            srv = subprocess.Popen(s["cmd"], env=env, stdout=logf, stderr=subprocess.STDOUT, start_new_session=True,
                                   preexec_fn=prio)
            ok, last = False, None
            while time.time() - t0 < 90 and srv.poll() is None:
                try:
                    if probe(s["cells"][0]):
                        ok = True
                        break
                except Exception as e:
                    last = repr(e)[:200]
                time.sleep(0.02)
            res["startup_s"] = round(time.time() - t0, 2)
        try:
            if not ok:
                res["error"] = f"never ready: {last}; log {open(tmp / 'server.log').read()[-800:]}"
                print(name, res["error"], flush=True)
            else:
                time.sleep(2)
                if NICE:  # children that made sessions of their own (Ray's do) start again at 0
                    for pid in tagged(tag):
                        with contextlib.suppress(OSError):
                            pathlib.Path(f"/proc/{pid}/autogroup").write_text(str(NICE))
                res["procs"] = len(tagged(tag))
                res["rss_mb_idle"], res["pss_mb_idle"] = mem_of(tagged(tag))
                for cell in s["cells"]:
                    try:
                        assert probe(cell), "probe: wrong answer"
                    except Exception as e:
                        res["cells"].append(dict(cell=cell[0], error=repr(e)[:300]))
                        print(name, cell[0], "PROBE FAILED", repr(e)[:200], flush=True)
                        continue
                    if a.probe_only:
                        print("probe ok:", cell[0], flush=True)
                        continue
                    for conc in map(int, a.conc.split(",")):
                        reps = []
                        with lock():  # one hold per cell
                            for attempt in range(a.reps + a.extra):
                                pids = tagged(tag)
                                c0, b0 = cpu_of(pids), busy()
                                r = run_client(cell, conc, a.secs, tmp)
                                b1, c1 = busy(), cpu_of(pids)
                                w = r["wall_s"]
                                r["server_cores"] = (c1 - c0) / w
                                r["client_cores"] = r["client_cpu_s"] / w
                                r["other_cores"] = max(0, (b1 - b0 - (c1 - c0) - r["client_cpu_s"]) / w)
                                # server CPU is taken over the whole run, warm-up included, at the measured rate
                                r["server_us_per_req"] = 1e6 * r["server_cores"] / r["rps"] if r.get("rps") else None
                                r["client_us_per_req"] = 1e6 * r["client_cores"] / r["rps"] if r.get("rps") else None
                                reps.append(r)
                                if sum(x["other_cores"] < a.quiet for x in reps) >= a.reps:
                                    break
                        tried = len(reps)
                        reps = sorted(reps, key=lambda x: x["other_cores"])[:a.reps]
                        g = {k: med([x.get(k) for x in reps]) for k in ("rps", "p50_us", "p99_us", "server_cores", "client_cores", "other_cores", "server_us_per_req", "client_us_per_req")}
                        g.update(cell=cell[0], conc=conc, tried=tried, nice=a.nice, rps_all=[round(x.get("rps") or 0) for x in reps],
                                 err=next((x["err"] for x in reps if x["err"]), None))
                        res["cells"].append(g)
                        f = lambda x, n=0: "-" if x is None else f"{x:.{n}f}"
                        print(f"{cell[0]:44s} c={conc:<3d} rps={f(g['rps'])} {g['rps_all']} p50={f(g['p50_us'])}us p99={f(g['p99_us'])}us "
                              f"srv={f(g['server_cores'],2)} cli={f(g['client_cores'],2)} other={f(g['other_cores'],2)} cores "
                              f"srv_us/req={f(g['server_us_per_req'])} {g['err'] or ''}", flush=True)
                res["rss_mb_loaded"], res["pss_mb_loaded"] = mem_of(tagged(tag))
                print(f"== {name}: startup {res['startup_s']}s procs {res['procs']} RSS {res['rss_mb_idle']}->{res['rss_mb_loaded']} MB PSS {res['pss_mb_idle']}->{res['pss_mb_loaded']} MB", flush=True)
        finally:
            # only processes carrying this run's tag
            with contextlib.suppress(ProcessLookupError):
                os.kill(srv.pid, signal.SIGTERM)
            t = time.time()
            while time.time() - t < 10 and tagged(tag):
                srv.poll()
                time.sleep(0.2)
            for p in tagged(tag):
                with contextlib.suppress(OSError):
                    os.kill(p, signal.SIGKILL)
            srv.wait()
        if not a.probe_only:
            (out / f"{name}.json").write_text(json.dumps(res, indent=1))


if __name__ == "__main__":
    main()
