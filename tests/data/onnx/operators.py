"""Small graphs of each operator with inputs and what onnxruntime gives for them, for models/src/onnx/tests.rs.

    pip install onnx onnxruntime numpy && python operators.py    # writes operators.bin beside itself

Of each case: its name, the model, the inputs, the outputs; each with its length before it as a little-endian u32. Tensors are
TensorProto messages.
"""

import pathlib
import struct

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

random = np.random.default_rng(4)
cases = []
onnxruntime.set_default_logger_severity(4)


def f32(*shape, low=-2.0, high=2.0):
    return random.uniform(low, high, shape).astype(np.float32)


def i64(values):
    return np.array(values, dtype=np.int64)


def add(name, nodes, inputs, outputs=1, version=17, constants=(), ir=8):
    """A case from nodes that read x0, x1, … (`inputs`) and c0, c1, … (`constants`) and give y0, y1, …"""
    nodes = nodes if isinstance(nodes, list) else [nodes]
    inputs = [np.asarray(x) for x in inputs]
    given = [helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(x.dtype), [None] * x.ndim)
             for i, x in enumerate(inputs)]
    named = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
    wanted = [onnx.ValueInfoProto(name=y) for y in named]
    weights = [numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(constants)]
    graph = helper.make_graph(nodes, name, given, wanted, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=ir)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results = session.run(None, {f"x{i}": x for i, x in enumerate(inputs)})
    # onnxruntime has inferred the types that the graph declares.
    for value, result in zip(model.graph.output, results):
        result = np.asarray(result)
        value.CopyFrom(helper.make_tensor_value_info(
            value.name, helper.np_dtype_to_tensor_dtype(result.dtype), [None] * result.ndim))
    tensors = lambda values: [numpy_helper.from_array(np.asarray(v)).SerializeToString() for v in values]
    cases.append((f"{name} v{version}", model.SerializeToString(), tensors(inputs), tensors(results)))


def node(kind, *inputs, outputs=1, **attributes):
    names = [f"y{i}" for i in range(outputs)] if isinstance(outputs, int) else outputs
    return helper.make_node(kind, list(inputs), names, **attributes)


def unary():
    for kind in ["Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity", "IsNaN",
                 "LeakyRelu", "Neg", "Reciprocal", "Relu", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign",
                 "Tanh", "ThresholdedRelu", "Celu"]:
        add(kind, node(kind, "x0"), [f32(3, 5)])
    for kind in ["Log", "Sqrt"]:
        add(kind, node(kind, "x0"), [f32(3, 5, low=0.1)])
    add("Mish", node("Mish", "x0"), [f32(3, 5)], version=18)
    add("Round", node("Round", "x0"), [np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4, 0.6, -0.6, 3.0], np.float32)])
    add("IsInf", node("IsInf", "x0"), [np.array([np.inf, -np.inf, 1, np.nan], np.float32)])
    add("IsInf positive", node("IsInf", "x0", detect_negative=0), [np.array([np.inf, -np.inf, 1, np.nan], np.float32)])
    add("IsNaN of NaN", node("IsNaN", "x0"), [np.array([np.inf, np.nan, 1], np.float32)])
    for kind in ["Abs", "Neg", "Sign"]:
        add(f"{kind} int", node(kind, "x0"), [i64([[-3, 0], [4, -5]])])
    add("Relu int", node("Relu", "x0"), [np.array([-3, 4], np.int32)], version=14)
    add("Not", node("Not", "x0"), [np.array([True, False, True])])
    add("Dropout", node("Dropout", "x0", outputs=2), [f32(2, 3)], outputs=2, version=13)
    add("Dropout", node("Dropout", "x0", ratio=0.3), [f32(2, 3)], version=7)
    for alpha in [0.1, 0.7]:
        add(f"LeakyRelu {alpha}", node("LeakyRelu", "x0", alpha=alpha), [f32(7)])
        add(f"Elu {alpha}", node("Elu", "x0", alpha=alpha), [f32(7)])
        add(f"Celu {alpha}", node("Celu", "x0", alpha=alpha), [f32(7)])
        add(f"HardSigmoid {alpha}", node("HardSigmoid", "x0", alpha=alpha, beta=0.3), [f32(7)])
        add(f"Selu {alpha}", node("Selu", "x0", alpha=alpha, gamma=1.2), [f32(7)])
        add(f"ThresholdedRelu {alpha}", node("ThresholdedRelu", "x0", alpha=alpha), [f32(7)])
    for how in ["none", "tanh"]:
        add(f"Gelu {how}", node("Gelu", "x0", approximate=how), [f32(3, 5)], version=20)
    add("PRelu", node("PRelu", "x0", "x1"), [f32(2, 3, 4), f32(3, 1)])
    add("PRelu one", node("PRelu", "x0", "x1"), [f32(2, 3, 4), f32(1)])
    add("Clip", node("Clip", "x0", min=-0.5, max=0.7), [f32(9)], version=7)
    add("Clip", node("Clip", "x0", "c0", "c1"), [f32(9)], constants=[np.float32(-0.5), np.float32(0.7)])
    add("Clip upper", node("Clip", "x0", "", "c0"), [f32(9)], constants=[np.float32(0.7)])
    add("Clip int", node("Clip", "x0", "c0", "c1"), [i64([-5, 0, 7])], constants=[np.int64(-1), np.int64(3)])


def binary():
    shapes = [((3, 4), (3, 4)), ((3, 4), (4,)), ((2, 1, 4), (3, 1)), ((2, 3), ()), ((), (2, 3)), ((1, 0, 2), (1, 1, 2))]
    for kind in ["Add", "Sub", "Mul", "Div"]:
        for a, b in shapes:
            add(f"{kind} {a} {b}", node(kind, "x0", "x1"), [f32(*a), f32(*b, low=0.5)])
        for kind_of in [np.int32, np.int64]:
            a, b = random.integers(-9, 9, (3, 4)).astype(kind_of), random.integers(1, 5, (4,)).astype(kind_of)
            add(f"{kind} {kind_of.__name__}", node(kind, "x0", "x1"), [a, b])
    add("Add wraps", node("Add", "x0", "x1"), [np.array([2**31 - 1], np.int32), np.array([1], np.int32)])
    for kind in ["Max", "Min", "Sum", "Mean"]:
        add(f"{kind} of three", node(kind, "x0", "x1", "x2"), [f32(3, 4), f32(4), f32(1, 1)])
        add(f"{kind} of one", node(kind, "x0"), [f32(3, 4)])
    for kind in ["Max", "Min"]:
        add(f"{kind} int", node(kind, "x0", "x1"), [i64([1, -5, 7]), i64([0, 0, 9])])
    for exponent in [2.0, 0.5, 3.0, -1.0, 1.7]:
        add(f"Pow {exponent}", node("Pow", "x0", "c0"), [f32(6, low=0.1)], constants=[np.float32(exponent)])
    add("Pow negative", node("Pow", "x0", "x1"), [f32(3, 2), np.array([2, 3], np.float32)])
    add("Pow int exponent", node("Pow", "x0", "x1"), [f32(3, 2), np.array([2, 3], np.int32)])
    add("Pow int", node("Pow", "x0", "x1"), [i64([2, -3, 4]), i64([10, 3, 0])])
    a, b = i64([-7, 7, -7, 7, 6]), i64([3, 3, -3, -3, 3])
    add("Mod", node("Mod", "x0", "x1"), [a, b])
    add("Mod fmod", node("Mod", "x0", "x1", fmod=1), [a, b])
    add("Mod float", node("Mod", "x0", "x1", fmod=1), [f32(5), f32(5, low=0.5)])
    for kind in ["Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"]:
        a, b = i64([[1, 2, 3], [3, 2, 1]]), i64([2, 2, 2])
        add(f"{kind} int", node(kind, "x0", "x1"), [a, b])
        add(f"{kind} float", node(kind, "x0", "x1"), [a.astype(np.float32), b.astype(np.float32)])
        add(f"{kind} int32", node(kind, "x0", "x1"), [a.astype(np.int32), b.astype(np.int32)])
    add("Equal bool", node("Equal", "x0", "x1"), [np.array([True, False]), np.array([True, True])])
    for kind in ["And", "Or", "Xor"]:
        add(kind, node(kind, "x0", "x1"), [np.array([[True], [False]]), np.array([True, False])])
    add("Where", node("Where", "x0", "x1", "x2"), [np.array([[True], [False]]), f32(2, 3), f32(3)])
    add("Where int", node("Where", "x0", "x1", "x2"), [np.array([True, False, True]), i64([1, 2, 3]), i64([4])])


def products():
    for a, b in [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((4,), (4,)),
                 ((4,), (4, 3)), ((3, 4), (4,)), ((2, 3, 4), (4,)), ((4,), (2, 4, 3)), ((3, 4), (2, 4, 5)),
                 ((2, 3, 2, 3, 4), (2, 3, 2, 4, 2)), ((1, 2, 3, 4), (1, 2, 4, 5)), ((0, 4), (4, 3)), ((2, 0), (0, 3))]:
        add(f"MatMul {a} {b}", node("MatMul", "x0", "x1"), [f32(*a), f32(*b)])
    turned = [helper.make_node("Transpose", ["x1"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", "x0", "t")]
    add("MatMul of a transposed", turned, [f32(2, 3, 4, 5), f32(2, 3, 6, 5)])
    heads = [helper.make_node("Transpose", ["x0"], ["a"], perm=[0, 2, 1, 3]),
             helper.make_node("Transpose", ["x1"], ["b"], perm=[0, 2, 3, 1]), node("MatMul", "a", "b")]
    add("MatMul of heads", heads, [f32(2, 5, 3, 4), f32(2, 6, 3, 4)])
    for ta in [0, 1]:
        for tb in [0, 1]:
            a, b = ((4, 3) if ta else (3, 4)), ((5, 4) if tb else (4, 5))
            for c in [(5,), (3, 1), (3, 5), ()]:
                add(f"Gemm {ta} {tb} {c}", node("Gemm", "x0", "x1", "x2", transA=ta, transB=tb, alpha=0.5, beta=2.0),
                    [f32(*a), f32(*b), f32(*c)])
    add("Gemm without C", node("Gemm", "x0", "x1"), [f32(3, 4), f32(4, 5)])
    for equation, shapes in [("ij,jk->ik", [(2, 3), (3, 4)]), ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)]),
                             ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]), ("i,j->ij", [(3,), (4,)]),
                             ("ij->ji", [(3, 4)]), ("ij->j", [(3, 4)]), ("ij,ij->", [(3, 4), (3, 4)]),
                             ("bi,bj->bij", [(2, 3), (2, 4)]), ("ijk,l,kl->ij", [(2, 3, 4), (5,), (4, 5)]),
                             ("ij,jk", [(2, 3), (3, 4)]), ("bqhd,bkhd->bhqk", [(2, 3, 4, 5), (2, 6, 4, 5)])]:
        add(f"Einsum {equation}", node("Einsum", *[f"x{i}" for i in range(len(shapes))], equation=equation),
            [f32(*shape) for shape in shapes])


def convolutions():
    plain = [dict(), dict(strides=[2]), dict(dilations=[2]), dict(pads=[1, 1]), dict(pads=[2, 0]),
             dict(auto_pad="SAME_UPPER", strides=[2]), dict(auto_pad="SAME_LOWER", strides=[2]), dict(auto_pad="VALID"),
             dict(strides=[3], pads=[1, 2], dilations=[2])]
    for attributes in plain:
        add(f"Conv 1d {attributes}", node("Conv", "x0", "x1", "x2", kernel_shape=[3], **attributes),
            [f32(2, 4, 9), f32(3, 4, 3), f32(3)])
    planes = [dict(), dict(strides=[2, 2]), dict(strides=[2, 1]), dict(dilations=[2, 2]), dict(dilations=[1, 2]),
              dict(pads=[1, 1, 1, 1]), dict(pads=[1, 0, 1, 0]), dict(pads=[0, 1, 2, 3]),
              dict(auto_pad="SAME_UPPER", strides=[2, 2]), dict(auto_pad="SAME_LOWER", strides=[2, 3]),
              dict(auto_pad="VALID", strides=[1, 2]), dict(strides=[2, 2], pads=[1, 1, 1, 1], dilations=[2, 2])]
    for attributes in planes:
        add(f"Conv 2d {attributes}", node("Conv", "x0", "x1", "x2", **attributes), [f32(2, 2, 7, 8), f32(3, 2, 3, 3), f32(3)])
    for groups, inner, outer in [(2, 2, 4), (4, 1, 4), (4, 1, 8)]:
        for attributes in [dict(), dict(strides=[2, 1], pads=[1, 1, 0, 0]), dict(strides=[2, 2], pads=[1, 1, 1, 1])]:
            add(f"Conv groups {groups} {outer} {attributes}", node("Conv", "x0", "x1", group=groups, **attributes),
                [f32(1, 4, 6, 6), f32(outer, inner, 3, 2)])
        add(f"Conv 1d groups {groups} {outer}", node("Conv", "x0", "x1", group=groups, pads=[1, 1]),
            [f32(2, 4, 6), f32(outer, inner, 3)])
    add("Conv 1x1", node("Conv", "x0", "x1", "x2"), [f32(2, 5, 4, 3), f32(6, 5, 1, 1), f32(6)])
    add("Conv 1x1 stride", node("Conv", "x0", "x1", strides=[2, 2]), [f32(2, 5, 4, 3), f32(6, 5, 1, 1)])
    add("Conv 3d", node("Conv", "x0", "x1", pads=[1, 0, 1, 0, 1, 0]), [f32(1, 2, 4, 4, 4), f32(2, 2, 2, 3, 2)])
    add("Conv of no rows", node("Conv", "x0", "x1"), [f32(0, 2, 5, 5), f32(3, 2, 3, 3)])
    lines = [dict(), dict(strides=[2]), dict(pads=[1, 1]), dict(pads=[1, 0], strides=[3]), dict(output_padding=[1], strides=[2]),
             dict(dilations=[2]), dict(output_shape=[11], strides=[2]), dict(auto_pad="SAME_UPPER", strides=[2]),
             dict(auto_pad="SAME_LOWER", strides=[2]), dict(pads=[2, 2], strides=[2])]
    for attributes in lines:
        add(f"ConvTranspose 1d {attributes}", node("ConvTranspose", "x0", "x1", "x2", **attributes),
            [f32(2, 3, 5), f32(3, 4, 3), f32(4)])
    for attributes in [dict(), dict(strides=[2, 2]), dict(strides=[2, 1], pads=[1, 0, 0, 1]), dict(dilations=[2, 1]),
                       dict(strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]), dict(group=2)]:
        outer = 2 if "group" in attributes else 3
        add(f"ConvTranspose 2d {attributes}", node("ConvTranspose", "x0", "x1", **attributes),
            [f32(2, 4, 4, 3), f32(4, outer, 3, 2)])


def pools():
    for kind in ["MaxPool", "AveragePool"]:
        more = [dict(count_include_pad=1, pads=[1, 1, 1, 1]), dict(count_include_pad=1, pads=[1, 0, 1, 1], ceil_mode=1, strides=[2, 2])] \
            if kind == "AveragePool" else [dict(dilations=[2, 2]), dict(dilations=[2, 1], strides=[1, 2])]
        for attributes in [dict(), dict(strides=[2, 2]), dict(strides=[2, 1]), dict(pads=[1, 1, 1, 1]), dict(pads=[0, 1, 1, 0]),
                           dict(strides=[2, 2], ceil_mode=1), dict(strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1]),
                           dict(auto_pad="SAME_UPPER", strides=[2, 2]), dict(auto_pad="SAME_LOWER"),
                           dict(auto_pad="VALID", strides=[3, 3]), *more]:
            add(f"{kind} {attributes}", node(kind, "x0", kernel_shape=[3, 2], **attributes), [f32(1, 2, 7, 8)])
        for attributes in [dict(), dict(strides=[2], pads=[1, 1]), dict(strides=[3], ceil_mode=1)]:
            add(f"{kind} 1d {attributes}", node(kind, "x0", kernel_shape=[3], **attributes), [f32(2, 3, 9)])
        add(f"{kind} 3d", node(kind, "x0", kernel_shape=[2, 2, 2], strides=[1, 2, 2]), [f32(1, 2, 4, 4, 4)])
        add(f"{kind} ceil beyond", node(kind, "x0", kernel_shape=[1], strides=[2], ceil_mode=1), [f32(1, 1, 4)])
    add("AveragePool dilated", node("AveragePool", "x0", kernel_shape=[2, 2], dilations=[2, 2]), [f32(1, 2, 6, 6)], version=19)
    for kind in ["GlobalMaxPool", "GlobalAveragePool"]:
        for shape in [(2, 3, 5), (2, 3, 4, 5), (1, 2, 2, 3, 2)]:
            add(f"{kind} {shape}", node(kind, "x0"), [f32(*shape)])
    for mode in ["DCR", "CRD"]:
        add(f"DepthToSpace {mode}", node("DepthToSpace", "x0", blocksize=2, mode=mode), [f32(1, 8, 2, 3)])
    add("SpaceToDepth", node("SpaceToDepth", "x0", blocksize=2), [f32(1, 2, 4, 6)])


def normalizations():
    channels = lambda: [f32(3), f32(3), f32(3), f32(3, low=0.1)]
    for shape in [(2, 3), (2, 3, 4), (2, 3, 4, 2)]:
        add(f"BatchNormalization {shape}", node("BatchNormalization", "x0", "x1", "x2", "x3", "x4", epsilon=1e-3),
            [f32(*shape), *channels()])
    add("BatchNormalization", node("BatchNormalization", "x0", "x1", "x2", "x3", "x4"), [f32(2, 3, 4), *channels()], version=9)
    add("InstanceNormalization", node("InstanceNormalization", "x0", "x1", "x2"), [f32(2, 3, 4, 5), f32(3), f32(3)])
    for axis in [-1, 1, 2]:
        shape = (2, 3, 4)[axis:]
        add(f"LayerNormalization {axis}", node("LayerNormalization", "x0", "x1", "x2", axis=axis),
            [f32(2, 3, 4), f32(*shape), f32(*shape)])
    add("LayerNormalization statistics", node("LayerNormalization", "x0", "x1", outputs=3, epsilon=1e-3), [f32(2, 3, 4), f32(4)], outputs=3)
    add("GroupNormalization", node("GroupNormalization", "x0", "x1", "x2", num_groups=2), [f32(2, 4, 3, 2), f32(4), f32(4)], version=21)
    add("RMSNormalization", node("RMSNormalization", "x0", "x1"), [f32(2, 3, 4), f32(4)], version=23)
    for p in [1, 2]:
        for axis in [0, -1]:
            add(f"LpNormalization {p} {axis}", node("LpNormalization", "x0", p=p, axis=axis), [f32(3, 4)])
    for kind in ["Softmax", "LogSoftmax", "Hardmax"]:
        for version in [11, 13]:
            for axis in [None, 0, 1, -1, 2]:
                attributes = {} if axis is None else dict(axis=axis)
                add(f"{kind} {axis}", node(kind, "x0", **attributes), [f32(2, 3, 4, high=5)], version=version)


def reductions():
    for kind in ["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare",
                 "ReduceLogSum", "ReduceLogSumExp"]:
        x = lambda: f32(2, 3, 4, low=0.2)
        old = 11 if kind == "ReduceSum" else 17
        for axes in [None, [1], [-1], [0, 2], [0, 1, 2]]:
            for keep in [0, 1]:
                attributes = dict(keepdims=keep) if axes is None else dict(keepdims=keep, axes=axes)
                add(f"{kind} {axes} {keep}", node(kind, "x0", **attributes), [x()], version=old)
        add(f"{kind} input", node(kind, "x0", "c0"), [x()], version=18, constants=[i64([1])])
        add(f"{kind} noop", node(kind, "x0", noop_with_empty_axes=1), [x()], version=18)
        if kind not in ["ReduceLogSum", "ReduceLogSumExp", "ReduceL1", "ReduceL2"]:
            add(f"{kind} int", node(kind, "x0", "c0"), [i64([[1, 2], [3, -4]])], version=18, constants=[i64([1])])
    for kind in ["ArgMax", "ArgMin"]:
        ties = np.array([[1, 3, 3], [2, 2, 0]], np.float32)
        for axis in [0, 1, -1]:
            for keep in [0, 1]:
                for last in [0, 1]:
                    add(f"{kind} {axis} {keep} {last}", node(kind, "x0", axis=axis, keepdims=keep, select_last_index=last), [ties])
        add(f"{kind} int", node(kind, "x0"), [np.array([[1, 3], [2, 2]], np.int32)])
    for axis in [0, 1, -1]:
        for largest in [0, 1]:
            add(f"TopK {axis} {largest}", node("TopK", "x0", "c0", outputs=2, axis=axis, largest=largest), [f32(4, 5)],
                outputs=2, constants=[i64([3])])
    add("TopK ties", node("TopK", "x0", "c0", outputs=2), [np.array([1, 3, 3, 2, 3], np.float32)], outputs=2, constants=[i64([4])])
    add("TopK", node("TopK", "x0", outputs=2, k=2), [f32(4, 5)], outputs=2, version=9)
    for axis in [0, 1]:
        for exclusive in [0, 1]:
            for reverse in [0, 1]:
                add(f"CumSum {axis} {exclusive} {reverse}", node("CumSum", "x0", "c0", exclusive=exclusive, reverse=reverse),
                    [f32(3, 4)], constants=[np.int64(axis)])
    add("CumSum int", node("CumSum", "x0", "c0"), [i64([1, 2, 3])], constants=[np.int64(0)])


def recurrent():
    hidden, width, steps, rows = 3, 4, 5, 2
    for kind, gates in [("LSTM", 4), ("GRU", 3), ("RNN", 1)]:
        for direction in ["forward", "reverse", "bidirectional"]:
            d = 2 if direction == "bidirectional" else 1
            weights = lambda: [f32(steps, rows, width), f32(d, gates * hidden, width), f32(d, gates * hidden, hidden)]
            outputs = 3 if kind == "LSTM" else 2
            names = ["y0", "y1", "y2"][:outputs]
            make = lambda *inputs, **more: node(kind, *inputs, outputs=names, hidden_size=hidden, direction=direction, **more)
            add(f"{kind} {direction}", make("x0", "x1", "x2"), weights(), outputs=outputs)
            bias, state = f32(d, 2 * gates * hidden), [f32(d, rows, hidden) for _ in range(outputs - 1)]
            states = [f"x{4 + i}" for i in range(outputs - 1)]
            add(f"{kind} {direction} state", make("x0", "x1", "x2", "x3", "", *states), [*weights(), bias, *state], outputs=outputs)
            lengths = np.array([5, 3], np.int32)
            add(f"{kind} {direction} lengths", make("x0", "x1", "x2", "x3", "x4"), [*weights(), bias, lengths], outputs=outputs)
            if kind == "GRU":
                add(f"{kind} {direction} linear", make("x0", "x1", "x2", "x3", linear_before_reset=1), [*weights(), bias], outputs=outputs)
            if kind == "LSTM":
                add(f"{kind} {direction} peepholes", make("x0", "x1", "x2", "x3", "", "", "", "x4"),
                    [*weights(), bias, f32(d, 3 * hidden)], outputs=outputs)
            functions = {"LSTM": ["HardSigmoid", "Softsign", "Relu"], "GRU": ["HardSigmoid", "LeakyRelu"], "RNN": ["Relu"]}[kind]
            alphas = {"LSTM": [0.3], "GRU": [0.3, 0.1], "RNN": []}[kind]
            betas = {"LSTM": [0.4], "GRU": [0.4], "RNN": []}[kind]
            more = dict(activation_alpha=alphas * d, activation_beta=betas * d) if d == 1 and alphas else {}
            if d == 1:
                add(f"{kind} {direction} functions", make("x0", "x1", "x2", activations=functions, clip=2.0, **more), weights(), outputs=outputs)
    add("LSTM input_forget", node("LSTM", "x0", "x1", "x2", outputs=3, hidden_size=2, input_forget=1),
        [f32(3, 2, 4), f32(1, 8, 4), f32(1, 8, 2)], outputs=3)


def shapes():
    for wanted, allow in [([4, 6], 0), ([-1], 0), ([0, -1], 0), ([2, 0, 2, 2], 0), ([1, 24, 1], 0), ([-1, 0, 2], 0)]:
        add(f"Reshape {wanted}", node("Reshape", "x0", "c0", allowzero=allow), [f32(2, 3, 4)], constants=[i64(wanted)])
    add("Reshape to nothing", node("Reshape", "x0", "c0", allowzero=1), [f32(0, 3)], constants=[i64([3, 0])])
    add("Reshape to a scalar", node("Reshape", "x0", "c0"), [f32(1, 1)], constants=[i64([])])
    for axis in [0, 1, 2, 3, -1, -3]:
        add(f"Flatten {axis}", node("Flatten", "x0", axis=axis), [f32(2, 3, 4)])
    for axes in [None, [0], [-1], [0, -1]]:
        attributes = {} if axes is None else dict(axes=axes)
        add(f"Squeeze {axes}", node("Squeeze", "x0", **attributes), [f32(1, 3, 1)], version=11)
        inputs, constants = (["x0"], []) if axes is None else (["x0", "c0"], [i64(axes)])
        add(f"Squeeze {axes}", node("Squeeze", *inputs), [f32(1, 3, 1)], constants=constants)
    for axes in [[0], [-1], [0, 3], [1, 2], [4, 0]]:
        add(f"Unsqueeze {axes}", node("Unsqueeze", "x0", "c0"), [f32(2, 3, 4)], constants=[i64(axes)])
    add("Unsqueeze", node("Unsqueeze", "x0", axes=[1]), [f32(2, 3)], version=11)
    add("Transpose", node("Transpose", "x0"), [f32(2, 3, 4)])
    add("Transpose perm", node("Transpose", "x0", perm=[1, 2, 0]), [f32(2, 3, 4)])
    for shape, to in [((3, 1), [2, 3, 4]), ((3, 4), [1]), ((1,), [2, 2]), ((2, 1), [1, 3])]:
        add(f"Expand {shape} {to}", node("Expand", "x0", "c0"), [f32(*shape)], constants=[i64(to)])
    for repeats in [[1, 1], [2, 3], [1, 2], [0, 2]]:
        add(f"Tile {repeats}", node("Tile", "x0", "c0"), [f32(2, 3)], constants=[i64(repeats)])
    add("Shape", node("Shape", "x0"), [f32(2, 3, 4)])
    for start, end in [(1, 3), (-1, 9), (0, -1), (2, 1)]:
        add(f"Shape {start} {end}", node("Shape", "x0", start=start, end=end), [f32(2, 3, 4)])
    add("Size", node("Size", "x0"), [f32(2, 3, 4)])
    for starts, ends, axes, steps in [([0], [2], [0], None), ([1, 1], [3, -1], [0, 2], None), ([-2], [9], [1], [1]),
                                      ([0], [9], [2], [2]), ([-1], [-9], [2], [-1]), ([3], [0], [0], [1]),
                                      ([5, 4], [0, -99], [0, 2], [-2, -3]), ([2**62], [-(2**62)], [1], [-1])]:
        constants = [i64(starts), i64(ends), i64(axes)] + ([] if steps is None else [i64(steps)])
        add(f"Slice {starts} {ends} {axes} {steps}", node("Slice", "x0", *[f"c{i}" for i in range(len(constants))]),
            [f32(4, 5, 6)], constants=constants)
    add("Slice without axes", node("Slice", "x0", "c0", "c1"), [f32(4, 5)], constants=[i64([1, 2]), i64([3, 4])])
    add("Slice", node("Slice", "x0", starts=[1], ends=[3], axes=[1]), [f32(4, 5)], version=9)
    add("Slice int32", node("Slice", "x0", "c0", "c1"), [np.arange(6, dtype=np.int32)],
        constants=[np.array([1], np.int32), np.array([5], np.int32)])
    for axis in [0, 1, -1]:
        parts = [(2, 3), (2, 3), (2, 3)]
        add(f"Concat {axis}", node("Concat", "x0", "x1", "x2", axis=axis), [f32(*part) for part in parts])
    add("Concat int", node("Concat", "x0", "x1", axis=0), [i64([1, 2]), i64([3])])
    add("Concat empty", node("Concat", "x0", "x1", axis=0), [f32(0, 2), f32(3, 2)])
    turned = [helper.make_node("Transpose", ["x0"], ["t"]), node("Concat", "t", "x1", axis=1)]
    add("Concat of a transposed", turned, [f32(2, 3), f32(3, 4)])
    add("Split", node("Split", "x0", outputs=2, axis=1), [f32(2, 6)], outputs=2, version=13)
    add("Split sizes", node("Split", "x0", "c0", outputs=3, axis=-1), [f32(2, 6)], outputs=3, constants=[i64([1, 2, 3])])
    add("Split", node("Split", "x0", outputs=2, axis=0, split=[1, 2]), [f32(3, 2)], outputs=2, version=11)
    add("Split uneven", node("Split", "x0", outputs=3, num_outputs=3), [f32(7, 2)], outputs=3, version=18)


def positions():
    for axis in [0, 1, -1]:
        for wanted in [np.int64(1), i64([0, -1]), i64([[0, 1], [-2, 0]])]:
            add(f"Gather {axis} {np.shape(wanted)}", node("Gather", "x0", "x1", axis=axis), [f32(3, 4, 2), np.asarray(wanted)])
    add("Gather int32", node("Gather", "x0", "x1"), [i64([5, 6, 7]), np.array([2, 0], np.int32)])
    for axis in [0, 1, -1]:
        add(f"GatherElements {axis}", node("GatherElements", "x0", "x1", axis=axis), [f32(3, 3), i64([[0, 2, -1], [1, 0, -3]])])
    for batch, tuples in [(0, [[0, 1], [2, -1]]), (0, [[1], [0]]), (0, [[[0, 1, 0]], [[1, 0, 1]]]), (1, [[0], [1], [-1]]),
                          (1, [[[0], [1]], [[2], [3]], [[1], [0]]])]:
        add(f"GatherND {batch} {np.shape(tuples)}", node("GatherND", "x0", "x1", batch_dims=batch), [f32(3, 4, 2), i64(tuples)])
    for reduction in ["none", "add"]:
        add(f"ScatterND {reduction}", node("ScatterND", "x0", "x1", "x2", reduction=reduction),
            [f32(4, 3), i64([[1], [3]]), f32(2, 3)], version=16)
        add(f"ScatterND deep {reduction}", node("ScatterND", "x0", "x1", "x2", reduction=reduction),
            [f32(4, 3), i64([[1, 2], [-1, 0]]), f32(2)], version=16)
        for axis in [0, 1]:
            add(f"ScatterElements {axis} {reduction}", node("ScatterElements", "x0", "x1", "x2", axis=axis, reduction=reduction),
                [f32(3, 3), i64([[1, 0, 2], [0, 2, -2]]), f32(2, 3)], version=16)
    add("NonZero", node("NonZero", "x0"), [np.array([[1, 0, 2], [0, 0, 3]], np.float32)])
    add("NonZero bool", node("NonZero", "x0"), [np.array([True, False, True])])
    add("NonZero of none", node("NonZero", "x0"), [np.zeros((2, 2), np.float32)])
    for axis in [-1, 0, 1]:
        add(f"OneHot {axis}", node("OneHot", "x0", "c0", "c1", axis=axis), [i64([[0, 2], [-1, 5]])],
            constants=[np.int64(3), np.array([0.5, 2.0], np.float32)])
    for upper in [0, 1]:
        for k in [-1, 0, 1]:
            add(f"Trilu {upper} {k}", node("Trilu", "x0", "c0", upper=upper), [f32(2, 3, 4)], constants=[np.int64(k)])
    add("Trilu int", node("Trilu", "x0"), [i64([[1, 2], [3, 4]])])
    add("EyeLike", node("EyeLike", "x0", k=1), [f32(3, 4)])
    add("Range", node("Range", "c0", "c1", "c2"), [], constants=[np.int64(2), np.int64(11), np.int64(3)])
    add("Range down", node("Range", "c0", "c1", "c2"), [], constants=[np.float32(2), np.float32(-1), np.float32(-0.5)])
    add("Range of nothing", node("Range", "x0", "c0", "c1"), [np.int64(5)], constants=[np.int64(1), np.int64(1)])


def pads_and_sizes():
    for mode in ["constant", "reflect", "edge", "wrap"]:
        version = 19 if mode == "wrap" else 13
        for pads in [[0, 1, 2, 1], [2, 0, 0, 2]]:
            add(f"Pad {mode} {pads}", node("Pad", "x0", "c0", mode=mode), [f32(3, 4)], version=version, constants=[i64(pads)])
    add("Pad value", node("Pad", "x0", "c0", "c1"), [f32(2, 2)], constants=[i64([1, 0, 0, 1]), np.float32(1.5)])
    add("Pad cuts", node("Pad", "x0", "c0"), [f32(4, 4)], constants=[i64([-1, 1, 0, -2])])
    add("Pad axes", node("Pad", "x0", "c0", "", "c1"), [f32(2, 3, 4)], version=18, constants=[i64([1, 2]), i64([-1])])
    add("Pad", node("Pad", "x0", pads=[0, 1, 1, 0], value=0.5), [f32(2, 2)], version=7)
    add("Pad int", node("Pad", "x0", "c0"), [i64([1, 2])], constants=[i64([1, 2])])
    for mode in ["nearest", "linear", "cubic"]:
        for how in ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]:
            for scales in [[1, 1, 2, 2], [1, 1, 0.6, 1.5], [1, 1, 3, 0.5]]:
                add(f"Resize {mode} {how} {scales}", node("Resize", "x0", "", "c0", mode=mode, coordinate_transformation_mode=how),
                    [f32(1, 2, 4, 5)], version=13, constants=[np.array(scales, np.float32)])
            add(f"Resize {mode} {how} sizes", node("Resize", "x0", "", "", "c0", mode=mode, coordinate_transformation_mode=how),
                [f32(1, 2, 4, 5)], version=13, constants=[i64([1, 2, 7, 3])])
    for how in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]:
        for scales in [[1, 1, 2.5, 0.7], [1, 1, 2, 2]]:
            add(f"Resize nearest {how} {scales}", node("Resize", "x0", "", "c0", nearest_mode=how), [f32(1, 1, 4, 5)],
                version=13, constants=[np.array(scales, np.float32)])
    add("Resize symmetric", node("Resize", "x0", "", "c0", mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
        [f32(1, 1, 4, 5)], version=19, constants=[np.array([1, 1, 1.3, 0.7], np.float32)])
    add("Resize cubic outside", node("Resize", "x0", "", "c0", mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
        [f32(1, 1, 4, 5)], version=13, constants=[np.array([1, 1, 2, 0.8], np.float32)])
    for policy in ["not_larger", "not_smaller"]:
        add(f"Resize {policy}", node("Resize", "x0", "", "", "c0", axes=[2, 3], keep_aspect_ratio_policy=policy), [f32(1, 1, 4, 5)],
            version=18, constants=[i64([7, 8])])
    add("Resize", node("Resize", "x0", "c0"), [f32(1, 1, 4, 5)], version=10, constants=[np.array([1, 1, 2, 0.6], np.float32)])
    add("Resize line", node("Resize", "x0", "", "c0", mode="linear"), [f32(1, 2, 5)], version=13,
        constants=[np.array([1, 1, 1.7], np.float32)])
    add("Upsample", node("Upsample", "x0", "c0", mode="nearest"), [f32(1, 1, 2, 3)], version=9, constants=[np.array([1, 1, 2, 3], np.float32)])
    add("Upsample", node("Upsample", "x0", scales=[1.0, 1.0, 2.0, 2.0], mode="linear"), [f32(1, 1, 2, 3)], version=7)


def types():
    numbers = np.array([-1.7, 0.0, 0.4, 2.5], np.float32)
    for to in [np.int32, np.int64, np.float64, np.float16, np.bool_, np.uint8, np.int16, np.uint32]:
        x = np.abs(numbers) if to in (np.uint8, np.uint32) else numbers
        add(f"Cast to {to.__name__}", node("Cast", "x0", to=int(helper.np_dtype_to_tensor_dtype(np.dtype(to)))), [x])
    for of in [np.int32, np.int64, np.bool_, np.uint8, np.float16, np.float64]:
        add(f"Cast from {of.__name__}", node("Cast", "x0", to=TensorProto.FLOAT), [np.array([0, 1, 3]).astype(of)])
    add("Cast int to bool", node("Cast", "x0", to=TensorProto.BOOL), [i64([0, 1, -3])])
    add("CastLike", node("CastLike", "x0", "x1"), [numbers, i64([1])], version=15)
    add("Constant", node("Constant", value=numpy_helper.from_array(f32(2, 2))), [])
    add("Constant float", node("Constant", value_float=1.5), [])
    add("Constant floats", node("Constant", value_floats=[1.5, 2.5]), [])
    add("Constant int", node("Constant", value_int=7), [])
    add("Constant ints", node("Constant", value_ints=[7, 8]), [])
    add("ConstantOfShape", node("ConstantOfShape", "x0"), [i64([2, 3])])
    add("ConstantOfShape int", node("ConstantOfShape", "x0", value=numpy_helper.from_array(i64([4]))), [i64([2, 0])])
    add("ConstantOfShape scalar", node("ConstantOfShape", "x0"), [i64([])])
    half = np.array([[1.5, -2.0], [0.25, 3.0]], np.float16)
    for kind in ["Add", "Mul", "MatMul"]:
        add(f"{kind} half", node(kind, "x0", "x1"), [half, half.T.copy()])
    for kind in ["Relu", "Exp", "Sigmoid", "Softmax"]:
        add(f"{kind} half", node(kind, "x0"), [half])
    add("Add double", node("Add", "x0", "x1"), [np.array([1.5]), np.array([2.5, 1e300])])
    add("MatMul double", node("MatMul", "x0", "x1"), [random.normal(size=(2, 3)), random.normal(size=(3, 2))])
    add("Mul weights of all types", [helper.make_node("Cast", ["c0"], ["a"], to=1), helper.make_node("Cast", ["c1"], ["b"], to=1),
                                     helper.make_node("Mul", ["a", "b"], ["m"]), node("Mul", "m", "x0")],
        [f32(2)], constants=[np.array([2, 3], np.int32), np.array([0.5, 0.25], np.float16)])


def bodies():
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    integer = lambda name: helper.make_tensor_value_info(name, TensorProto.INT64, [])
    flag = lambda name: helper.make_tensor_value_info(name, TensorProto.BOOL, [])
    yes = helper.make_graph([helper.make_node("Add", ["x1", "x1"], ["a"])], "yes", [], [value("a")])
    no = helper.make_graph([helper.make_node("Constant", [], ["k"], value_float=2.0), helper.make_node("Mul", ["x1", "k"], ["m"]),
                            helper.make_node("Neg", ["m"], ["b"])], "no", [], [value("b")])
    for condition in [True, False]:
        add(f"If {condition}", [node("If", "x0", then_branch=yes, else_branch=no, outputs=["f"]), node("Relu", "f")],
            [np.array(condition), f32(2, 3)])
    body = helper.make_graph(
        [helper.make_node("Cast", ["i"], ["n"], to=1), helper.make_node("Add", ["s", "n"], ["t"]), helper.make_node("Add", ["t", "x1"], ["u"]),
         helper.make_node("Constant", [], ["limit"], value_float=6.0), helper.make_node("ReduceMax", ["u"], ["r"], keepdims=0),
         helper.make_node("Less", ["r", "limit"], ["c2"]), helper.make_node("Mul", ["u", "u"], ["q"])],
        "body", [integer("i"), flag("c"), value("s")], [flag("c2"), value("u"), value("q")])
    add("Loop", node("Loop", "c0", "c1", "x0", outputs=2, body=body), [f32(2), f32(2, low=0.1, high=0.5)], outputs=2,
        constants=[np.int64(10), np.array(True)])
    add("Loop by count", node("Loop", "c0", "", "x0", outputs=2, body=body), [f32(2) - 9, f32(2)], outputs=2, constants=[np.int64(3)])


def wider():
    for attributes in [dict(output_shape=[10, 8], strides=[3, 2]), dict(output_shape=[8], strides=[2]),
                       dict(output_shape=[13], strides=[4], auto_pad="SAME_UPPER")]:
        size = [3] * len(attributes["strides"])
        add(f"ConvTranspose beyond {attributes}", node("ConvTranspose", "x0", "x1", "x2", **attributes),
            [f32(1, 2, *size), f32(2, 3, *size), f32(3)])


for group in [unary, binary, products, convolutions, pools, normalizations, reductions, recurrent, shapes, positions, pads_and_sizes,
              types, bodies, wider]:
    group()
chunk = lambda data: struct.pack("<I", len(data)) + data
out = b"".join(
    chunk(name.encode()) + chunk(model) + b"".join(
        struct.pack("<I", len(tensors)) + b"".join(chunk(tensor) for tensor in tensors) for tensors in (inputs, outputs))
    for name, model, inputs, outputs in cases)
pathlib.Path(__file__).with_name("operators.bin").write_bytes(out)
print(len(cases), "cases,", len(out), "bytes")
