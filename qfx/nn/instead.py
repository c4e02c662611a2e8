"""What to use instead of the layers and calls of torch that have no fixed-point form, in words."""

from torch import fx

from qfx.nn.tracer import DROPOUTS

_FORMLESS = "there is no fixed-point form of it"
_NORMS = ("LayerNorm", "GroupNorm", "InstanceNorm2d", "RMSNorm", "LocalResponseNorm", "CrossMapLRN2d", "layer_norm",
          "group_norm", "instance_norm", "rms_norm", "local_response_norm", "normalize")  # fmt: skip
_OF_FRAMES = ("Conv3d", "ConvTranspose3d", "BatchNorm3d", "MaxPool3d", "AvgPool3d", "AdaptiveAvgPool3d",
              "AdaptiveMaxPool3d", "conv3d", "conv_transpose3d", "max_pool3d", "avg_pool3d", "adaptive_avg_pool3d",
              "adaptive_max_pool3d")  # fmt: skip
_RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
_CHOICES = ("where", "masked_fill", "gt", "ge", "lt", "le", "eq", "ne", "greater", "less", "logical_and",
            "logical_or", "logical_not")  # fmt: skip
_RANDOM = ("rand_like", "randn_like", "randint_like", "bernoulli", "normal", "gumbel_softmax")
_INSTEAD = {  # what to use
    "add": "a sum of tensors, or of a tensor and a constant, without alpha",
    **dict.fromkeys(
        ("sub", "isub", "subtract", "rsub"), "a difference of tensors, or of a tensor and a constant, without alpha"
    ),
    **dict.fromkeys(("mul", "imul", "multiply"), "a product of tensors, or of a tensor and a constant"),
    **dict.fromkeys(
        ("div", "truediv", "itruediv", "divide", "true_divide", "reciprocal"),
        "a product with qfx.nn.Table(torch.reciprocal)(divisor)",
    ),
    "stack": "torch.cat(tensors, 1)",
    "batch_norm": "the module nn.BatchNorm2d",
    "conv1d": "the module nn.Conv1d",
    "conv2d": "the module nn.Conv2d",
    "conv_transpose1d": "the module nn.ConvTranspose1d",
    "conv_transpose2d": "the module nn.ConvTranspose2d",
    "linear": "the module nn.Linear",
    **dict.fromkeys(DROPOUTS, "training=self.training, since it drops values in evaluation too, or nn.Dropout"),
    "pad": "zeros of channels, or of the sides of an image right before a convolution or a pool,",
    "squeeze": "torch.flatten(x, 1), or the axes of an image of one pixel, squeeze((2, 3)),",
    "clamp": "both bounds, as numbers",
    **dict.fromkeys(_NORMS, "nn.BatchNorm2d"),
    "InstanceNorm1d": "nn.BatchNorm1d",
    **dict.fromkeys(_OF_FRAMES, "images whose channels are the frames, (N, C, H, W), and nn.Conv2d and its like"),
    **dict.fromkeys(_RECURRENT, "convolutions over time, nn.Conv1d with padding and dilation,"),
    **dict.fromkeys(("ReflectionPad2d", "ReplicationPad2d", "CircularPad2d"), "nn.ZeroPad2d"),
    **dict.fromkeys(("ReflectionPad1d", "ReplicationPad1d", "CircularPad1d"), "nn.ZeroPad1d"),
    **dict.fromkeys(("RReLU", "rrelu"), "nn.LeakyReLU"),
    **dict.fromkeys(("Softmin", "softmin"), "nn.Softmax(1) of the negative, -x,"),
    **dict.fromkeys(("to", "type", "half", "bfloat16", "double"), "float32 throughout"),
    **dict.fromkeys(("LPPool2d", "lp_pool2d"), "nn.AvgPool2d of x * x"),
    **dict.fromkeys(("LPPool1d", "lp_pool1d"), "nn.AvgPool1d of x * x"),
    **dict.fromkeys(("FractionalMaxPool2d", "fractional_max_pool2d"), "nn.MaxPool2d or nn.AdaptiveMaxPool2d"),
    **dict.fromkeys(("MaxUnpool2d", "max_unpool2d"), "nn.Upsample or nn.ConvTranspose2d"),
    **dict.fromkeys(("Unfold", "unfold"), "nn.Conv2d, or nn.PixelUnshuffle for blocks that do not overlap,"),
    **dict.fromkeys(("view", "reshape", "view_as", "reshape_as"), "torch.flatten(x, 1)"),
    **dict.fromkeys(("size", "getattr"), "torch.flatten(x, 1), or a constant"),
    **dict.fromkeys(
        ("repeat", "repeat_interleave", "tile"), "x.repeat(1, k, 1, 1) of channels, or nn.Upsample of pixels,"
    ),
    **dict.fromkeys(
        ("gather", "index_select", "take_along_dim"), "x[:, [2, 0, 1]], a choice of channels that is fixed,"
    ),
    **dict.fromkeys(
        (
            "max_pool1d",
            "max_pool2d",
            "avg_pool1d",
            "avg_pool2d",
            "adaptive_avg_pool2d",
            "adaptive_max_pool2d",
            "interpolate",
        ),
        "numbers for its sizes, or give convert an example that tells them,",
    ),  # fmt: skip
    **dict.fromkeys(
        ("sum", "mean", "amax", "max"),
        "all of an image, dim=(2, 3), or its channels, its rows or its columns, with keepdim=True,",
    ),
    **dict.fromkeys(
        ("var", "std", "var_mean", "std_mean"), "nn.BatchNorm2d, or the mean of x * x less the square of the mean,"
    ),
    **dict.fromkeys(("norm", "linalg_vector_norm"), "the sum of x * x, and qfx.nn.Table(torch.sqrt) of it,"),
    **dict.fromkeys(
        _CHOICES,
        "torch.maximum, torch.minimum or clamp, or qfx.nn.Table(f) for a function f of one element, or choose behind "
        "the network",
    ),
    **dict.fromkeys(_RANDOM, "nn.Dropout, or random values in the training data,"),
}
_AXES = "keep the axes as they are, and bring the data into their order before the network"
_PARTS = "let a layer of its own give each part"
_ELEMENTWISE = (
    "products of tensors are those of their elements; use convolutions and gates, "
    "x * torch.sigmoid(conv(x.mean((2, 3), keepdim=True)))"
)
_BEHIND = "compute it behind the network, of its result"
_WITHOUT = {  # what to do without
    **dict.fromkeys(("transpose", "permute", "movedim", "swapaxes", "unsqueeze", "unflatten", "t"), _AXES),
    **dict.fromkeys(("expand", "expand_as"), "leave it out, sums and products repeat what has an axis of length 1"),
    **dict.fromkeys(("chunk", "split", "unbind", "getitem"), _PARTS),
    **dict.fromkeys(
        (
            "MultiheadAttention",
            "TransformerEncoderLayer",
            "TransformerDecoderLayer",
            "TransformerEncoder",
            "TransformerDecoder",
            "Transformer",
            "scaled_dot_product_attention",
            "multi_head_attention_forward",
            "Bilinear",
            "bilinear",
        ),
        _ELEMENTWISE,
    ),  # fmt: skip
    **dict.fromkeys(
        ("sort", "argsort", "topk", "kthvalue", "median", "argmax", "argmin", "cumsum", "cumprod", "nonzero"), _BEHIND
    ),
    **dict.fromkeys(("item", "tolist", "numpy"), "keep what it takes from the data a tensor, or take it of the result"),
    **dict.fromkeys(("Embedding", "EmbeddingBag", "embedding", "one_hot"), "give the network the vectors themselves"),
}
_PRODUCTS = ("matmul", "mm", "bmm", "mv", "einsum", "baddbmm", "addmm", "outer", "tensordot")
_TABLES = ("abs", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "atan",
           "sinh", "cosh", "erf", "erfc", "floor", "ceil", "round", "trunc", "sign")  # fmt: skip
_LOG_SOFTMAX = ("logsoftmax", "log_softmax")


def remedy(name: str, node: fx.Node) -> str:
    """Return what to do about a call of that name, such as what to use instead."""
    if node.op == "get_attr":
        return "it is a parameter outside of a layer: make it the bias of a layer, or a constant of a BatchNorm2d"
    constant = [_is_constant(source) for source in node.all_input_nodes]
    if name in _PRODUCTS:
        return f"use {_INSTEAD['linear']} instead" if any(constant) else f"{_FORMLESS}: {_ELEMENTWISE}"
    if constant and all(constant):
        return "it computes of parameters alone: make its result a parameter or buffer"
    if name == "linear" and any(_is_constant(source) and source.op != "get_attr" for source in node.all_input_nodes):
        return "its weight must be a parameter itself, not computed of one: use an nn.Linear of its own weight"
    return f"use qfx.nn.Table(torch.{name})(x) instead" if name in _TABLES else instead(name)


def instead(name: str) -> str:
    """Return what to use instead of a layer or call of that name."""
    if name.lower() in _LOG_SOFTMAX:
        return (
            "it has no fixed-point form; leave it out: the argmax of the logits is the same, and "
            "nn.functional.cross_entropy trains on logits"
        )
    if name in _INSTEAD:
        return f"use {_INSTEAD[name]} instead"
    return f"{_FORMLESS}: {_WITHOUT.get(name, 'compute it before or behind the network')}"


def _is_constant(node: fx.Node) -> bool:
    """Whether a value depends on parameters alone."""
    return node.op == "get_attr" or (bool(node.all_input_nodes) and all(map(_is_constant, node.all_input_nodes)))
