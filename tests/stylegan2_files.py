"""StyleGAN2 written down once more from its arithmetic, in NVIDIA's names, and its weights in each layout's files.

Networks are small and random. The arithmetic takes other ways than the package: kernels are modulated for each image,
zeros are put between pixels and filtered, and everything is float64.
"""

import collections
import pickle
import sys
import types
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F

WIDTHS, LATENT, STYLE, LAYERS = (12, 10, 8, 6), 7, 9, 3  # at 4, 8, 16 and 32 pixels
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0])
FILTER = TAPS[:, None] * TAPS / 64


def random_tensors(variant="skip", levels=3, classes=0, noise=True, channels=3):
    """The tensors of a network in which every number matters, by NVIDIA's names."""
    draw = torch.Generator().manual_seed(11)
    made = {}

    def put(name, *shape, std=1.0, mean=0.0):
        made[name] = mean + std * torch.randn(shape, generator=draw)

    def layer(name, outgoing, incoming, size):
        put(f"{name}.weight", outgoing, incoming, size, size)
        put(f"{name}.bias", outgoing, std=0.3)
        put(f"{name}.affine.weight", incoming, STYLE)
        put(f"{name}.affine.bias", incoming, std=0.3, mean=1)

    def convolution(name, outgoing, incoming, pixels):
        layer(name, outgoing, incoming, 3)
        made[f"{name}.resample_filter"] = FILTER.clone()
        if noise:
            put(f"{name}.noise_strength", std=0.5)
            put(f"{name}.noise_const", pixels, pixels)

    put("synthesis.b4.const", WIDTHS[0], 4, 4)
    for k, width in enumerate(WIDTHS[:levels]):
        block = f"synthesis.b{4 << k}"
        made[f"{block}.resample_filter"] = FILTER.clone()
        if k:
            convolution(f"{block}.conv0", width, WIDTHS[k - 1], 4 << k)
        convolution(f"{block}.conv1", width, width, 4 << k)
        if variant == "skip" or k == levels - 1:
            layer(f"{block}.torgb", channels, width, 1)
        if variant == "resnet" and k:
            put(f"{block}.skip.weight", width, WIDTHS[k - 1], 1, 1)
            made[f"{block}.skip.resample_filter"] = FILTER.clone()
    put("mapping.w_avg", STYLE)
    if classes:
        put("mapping.embed.weight", STYLE, classes, std=3.0)
        put("mapping.embed.bias", STYLE)
    for i in range(LAYERS):
        put(f"mapping.fc{i}.weight", STYLE, STYLE if i else LATENT + (STYLE if classes else 0), std=100.0)
        put(f"mapping.fc{i}.bias", STYLE, std=30.0)
    return made


class Reference:
    """What a network of these tensors computes."""

    def __init__(self, tensors, variant="skip", clamp=None, rate=0.01):
        self.tensors = {name: value.double() for name, value in tensors.items()}
        self.variant, self.clamp, self.rate = variant, clamp, rate
        self.levels = sum(name.endswith(".conv1.weight") for name in tensors)

    def w(self, z, label=None):
        t, unit = self.tensors, lambda x: x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
        x = unit(z.double())
        if label is not None:
            one = F.one_hot(torch.full((len(z),), label), t["mapping.embed.weight"].shape[1]).double()
            y = one @ t["mapping.embed.weight"].T / one.shape[1] ** 0.5 + t["mapping.embed.bias"]
            x = torch.cat([x, unit(y)], 1)
        for i in range(LAYERS):
            weight, bias = t[f"mapping.fc{i}.weight"], t[f"mapping.fc{i}.bias"]
            x = x @ weight.T * (self.rate / weight.shape[1] ** 0.5) + self.rate * bias
            x = 2**0.5 * torch.where(x > 0, x, 0.2 * x)
        return x

    def image(self, z, label=None, noise=True):
        return self.paint(self.w(z, label)[:, None].expand(-1, 2 * self.levels, -1), noise)

    def paint(self, ws, noise=True):
        """The images of w+ ``(n, styles, size)``, one after another."""
        return torch.cat([self._one(w, noise) for w in ws.double()])

    def _one(self, w, noise):
        t, image = self.tensors, None
        x = t["synthesis.b4.const"][None]
        for k in range(self.levels):
            block, i = f"synthesis.b{4 << k}", 2 * k - 1
            before, factor = x, 1.0
            if k:
                x = self._layer(f"{block}.conv0", x, w[i], noise, up=True)
            shortcut = f"{block}.skip.weight" in t
            factor = 0.5**0.5 if shortcut else 1.0
            x = self._layer(f"{block}.conv1", x, w[i + 1], noise, factor=factor)
            if shortcut:
                weight = t[f"{block}.skip.weight"]
                x = x + factor * self._twice(F.conv2d(before, weight / weight.shape[1] ** 0.5))
            if f"{block}.torgb.weight" in t:
                style = self._style(f"{block}.torgb", w[i + 2]) / x.shape[1] ** 0.5
                drawn = F.conv2d(x, t[f"{block}.torgb.weight"] * style[None, :, None, None], t[f"{block}.torgb.bias"])
                drawn = self._clamped(drawn)
                image = drawn if image is None else self._twice(image) + drawn
        return image

    def _style(self, name, w):
        weight = self.tensors[f"{name}.affine.weight"]
        return weight @ w / weight.shape[1] ** 0.5 + self.tensors[f"{name}.affine.bias"]

    def _layer(self, name, x, w, noise, up=False, factor=1.0):
        t = self.tensors
        weight = t[f"{name}.weight"] * self._style(name, w)[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if up:
            x = F.pad(self._stuffed(x), (3, 2, 3, 2))
            x = F.conv2d(x, 4 * FILTER.double().expand(x.shape[1], 1, 4, 4), groups=x.shape[1])
            x = F.conv2d(x, weight.flip(2, 3))
        else:
            x = F.conv2d(x, weight, padding=1)
        if noise and f"{name}.noise_const" in t:
            x = x + t[f"{name}.noise_const"] * t[f"{name}.noise_strength"]
        x = x + t[f"{name}.bias"][:, None, None]
        return self._clamped(torch.where(x > 0, x, 0.2 * x) * 2**0.5 * factor, factor)

    def _clamped(self, x, factor=1.0):
        return x if self.clamp is None else x.clamp(-self.clamp * factor, self.clamp * factor)

    @staticmethod
    def _stuffed(x):
        stuffed = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        stuffed[:, :, ::2, ::2] = x
        return stuffed

    def _twice(self, x):
        x = F.pad(self._stuffed(x), (2, 1, 2, 1))
        return F.conv2d(x, 4 * FILTER.double().expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


# NVIDIA's PyTorch pickles ------------------------------------------------------------------------------------------

SOURCE = "import torch\n\n\nclass Generator(torch.nn.Module):\n    raise_when_run = undefined_name\n"


@contextmanager
def foreign_modules():
    """The modules that such pickles name; they are gone when the files are read."""
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util", "dnnlib.tflib", "dnnlib.tflib.network")
    modules = {name: types.ModuleType(name) for name in names}

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("executed")

    class EasyDict(dict):
        pass

    class Network:
        def __init__(self, state):
            self.state = state

        def __getstate__(self):
            return self.state

    for module, thing in (
        ("torch_utils.persistence", _reconstruct_persistent_obj),
        ("dnnlib.util", EasyDict),
        ("dnnlib.tflib.network", Network),
    ):
        thing.__module__, thing.__qualname__ = module, thing.__name__
        setattr(modules[module], thing.__name__, thing)
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        for name in names:
            sys.modules.pop(name, None)


class Persistent:
    """One module: stored as a call of NVIDIA's function with all that it is made of."""

    def __init__(self, kind, source=SOURCE, version=6, **state):
        self.meta = {
            "type": "class", "version": version, "module_src": source, "class_name": kind,
            "state": {
                "training": False, "_parameters": {}, "_buffers": {}, "_non_persistent_buffers_set": set(),
                "_backward_hooks": collections.OrderedDict(), "_modules": {}, "_init_args": (), **state,
            },
        }  # fmt: skip

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)

    @property
    def state(self):
        return self.meta["state"]


def nvidia_module(tensors, options=None, clamp=None, rate=0.01, source=SOURCE, frozen="-"):
    """The generator as nested modules with what each layer says of itself.

    Args:
        tensors: by NVIDIA's names.
        options: its ``_init_kwargs``.
        clamp, rate: of the layers, and of the mapping.
        source: code within the file.
        frozen: beginning of the names whose weights are kept as buffers, as of layers frozen in training.
    """
    modules = {"": Persistent("Generator", source, _init_kwargs=options or {}, z_dim=LATENT, w_dim=STYLE)}
    for name, value in tensors.items():
        *path, last = name.split(".")
        for depth in range(1, len(path) + 1):
            inner = ".".join(path[:depth])
            if inner not in modules:
                kind, says = described(inner, tensors, clamp, rate)
                modules[inner] = Persistent(kind, source, **says)
                modules[".".join(path[: depth - 1])].state["_modules"][path[depth - 1]] = modules[inner]
        buffer = last in ("resample_filter", "noise_const", "w_avg") or name.startswith(frozen)
        held = value if buffer else torch.nn.Parameter(value, requires_grad=False)
        modules[".".join(path)].state["_buffers" if buffer else "_parameters"][last] = held
    return modules[""]


def described(name, tensors, clamp, rate):
    """The class of a module, and what it says of itself."""
    last = name.split(".")[-1]
    if last in ("mapping", "synthesis"):
        return f"{last.title()}Network", {}
    if last.startswith("conv"):
        noise = f"{name}.noise_const" in tensors
        says = {"up": 2 if last == "conv0" else 1, "use_noise": noise, "conv_clamp": clamp, "padding": 1}
        return "SynthesisLayer", {**says, "activation": "lrelu", "act_gain": np.sqrt(2)}
    if last == "torgb":
        width = tensors[f"{name}.weight"].shape[1]
        return "ToRGBLayer", {"conv_clamp": clamp, "weight_gain": 1 / np.sqrt(width)}
    if last == "skip":
        width = tensors[f"{name}.weight"].shape[1]
        says = {"activation": "linear", "up": 2, "down": 1, "weight_gain": 1 / np.sqrt(width), "act_gain": 1}
        return "Conv2dLayer", {**says, "conv_clamp": None}
    if last.startswith("b"):
        skips = any(".skip." in key for key in tensors)
        every = "synthesis.b4.torgb.weight" in tensors
        return "SynthesisBlock", {"architecture": "resnet" if skips else "skip" if every else "orig"}
    own = rate if last.startswith("fc") else 1
    width = tensors[f"{name}.weight"].shape[1]
    says = {"activation": "lrelu" if last.startswith("fc") else "linear", "bias_gain": own}
    return "FullyConnectedLayer", {**says, "weight_gain": own / np.sqrt(width)}


def snapshot(G_ema, others=None):
    """What the file of a training run holds: its settings, G, D, the running average of G, and augmentation."""
    G = nvidia_module({"synthesis.b4.const": torch.zeros(1, 4, 4)})
    D, augmentation = Persistent("Discriminator"), Persistent("AugmentPipe")
    return {"training_set_kwargs": {"path": "x"}, "G": G, "D": D, "G_ema": G_ema, "augment_pipe": augmentation} | (
        others or {}
    )


def write_pickle(path, content, protocol=4):
    """Write a pickle that names NVIDIA's modules, which are gone when it is read."""
    with foreign_modules():
        path.write_bytes(pickle.dumps(content, protocol))
    return path


# NVIDIA's TensorFlow pickles ---------------------------------------------------------------------------------------


def tensorflow_variables(tensors):
    """The same network by the names of TensorFlow, by part."""
    parts = {"mapping": [], "synthesis": []}

    def put(part, name, value):
        parts[part].append((name, np.ascontiguousarray(value.numpy())))

    for name, value in tensors.items():
        part, *rest = name.split(".")
        last = rest[-1]
        if last in ("resample_filter", "w_avg"):
            continue
        if part == "mapping":
            layer = "LabelEmbed" if rest[0] == "embed" else f"Dense{rest[0].removeprefix('fc')}"
            put(part, f"{layer}/{last}", value.T if last == "weight" else value)
            continue
        size = int(rest[0].removeprefix("b"))
        if last == "const":
            put(part, "4x4/Const/const", value[None])
            continue
        turned = rest[1] in ("conv0", "skip")
        layers = {"conv0": "Conv0_up", "conv1": "Conv" if size == 4 else "Conv1", "torgb": "ToRGB", "skip": "Skip"}
        layer = f"{size}x{size}/{layers[rest[1]]}"
        if last == "noise_const":
            number = 2 * size.bit_length() - 7 + (rest[1] == "conv1") if size > 4 else 0
            put(part, f"noise{number}", value[None, None])
        elif rest[2] == "affine":
            put(part, f"{layer}/mod_{last}", value.T if last == "weight" else value - 1)
        elif last == "weight":
            put(part, f"{layer}/weight", (value.flip(2, 3) if turned else value).permute(2, 3, 1, 0))
        else:
            put(part, f"{layer}/{last}", value)
    return parts


def tensorflow_network(parts, source="raise SystemExit('executed')", **settings):
    """A network of these parts; to be built where ``foreign_modules`` are there."""
    Network = sys.modules["dnnlib.tflib.network"].Network

    def network(name, variables, **more):
        about = {"version": 4, "name": name, "build_module_src": source, "build_func_name": name}
        return Network({**about, "static_kwargs": {}, "components": {}, "variables": variables, **more})

    inner = {part: network(part, variables) for part, variables in parts.items()}
    average = [("lod", np.float32(0)), ("dlatent_avg", np.zeros(STYLE, np.float32))]
    return network("G_main", average, static_kwargs=settings, components=inner)


def write_tensorflow(path, tensors, **settings):
    """Write (G, D, Gs), of which the last is wanted."""
    parts = tensorflow_variables(tensors)
    zeros = {part: [(name, 0 * value) for name, value in variables] for part, variables in parts.items()}
    with foreign_modules():
        networks = [tensorflow_network(given, **settings) for given in (zeros, {}, parts)]
        path.write_bytes(pickle.dumps(tuple(networks), protocol=3))
    return path


# rosinality's files ------------------------------------------------------------------------------------------------


def rosinality_state(tensors, noises=True):
    """The same network by rosinality's names."""
    made = {}
    for name, value in tensors.items():
        part, *rest = name.split(".")
        last = rest[-1]
        if last in ("resample_filter", "w_avg"):
            continue
        if part == "mapping":
            made[f"style.{int(rest[0].removeprefix('fc')) + 1}.{last}"] = value
            continue
        size = int(rest[0].removeprefix("b"))
        level = size.bit_length() - 3
        if last == "const":
            made["input.input"] = value[None]
            continue
        if rest[1] == "torgb":
            layer = f"to_rgbs.{level - 1}" if level else "to_rgb1"
            bias = f"{layer}.bias", value.view(1, -1, 1, 1)
        else:
            number = 2 * level - (rest[1] == "conv0")
            layer = f"convs.{number - 1}" if number else "conv1"
            bias = f"{layer}.activate.bias", value
        if last == "noise_const":
            if noises:
                made[f"noises.noise_{number}"] = value[None, None]
        elif last == "noise_strength":
            made[f"{layer}.noise.weight"] = value.view(1)
        elif rest[2] == "affine":
            made[f"{layer}.conv.modulation.{last}"] = value
        elif last == "weight":
            made[f"{layer}.conv.weight"] = value[None]
            if rest[1] == "conv0":
                made[f"{layer}.conv.blur.kernel"] = 4 * FILTER
                made[f"to_rgbs.{level - 1}.upsample.kernel"] = 4 * FILTER
        else:
            made[bias[0]] = bias[1]
    return made


def storage_of(data):
    """A tensor whose storage is these bytes, as a pickle of a parameter holds it."""

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (data,)

    class Forged:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, (1,), (1,), False, collections.OrderedDict())

    return Forged()
