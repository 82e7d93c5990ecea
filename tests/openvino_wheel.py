"""A MobileStyleGAN as its author published it, small and with random weights: written as OpenVINO networks in a folder
or a wheel, and computed here once more from the arithmetic of the publication.
"""

import hashlib
import zipfile
from itertools import pairwise
from xml.sax.saxutils import quoteattr

import numpy as np
import torch
import torch.nn.functional as F

CHANNELS, LATENT, LAYERS = (8, 8, 4), 6, 2  # 4, 8 and 16 pixels, so images of 32


class Network:
    """One network being written: XML of layers and edges, and the bytes that constants point into."""

    def __init__(self):
        self.layers, self.edges, self.numbers = [], [], bytearray(b"before")

    def layer(self, kind, name="", inputs=(), data=""):
        number = len(self.layers)
        self.layers.append(f'<layer id="{number}" name={quoteattr(name)} type="{kind}" version="opset1">{data}</layer>')
        self.edges += [
            f'<edge from-layer="{other}" from-port="0" to-layer="{number}" to-port="{port}"/>'
            for port, other in enumerate(inputs)
        ]
        return number

    def constant(self, array, name=""):
        array = np.asarray(array, "<f4")
        shape, offset = ", ".join(map(str, array.shape)), len(self.numbers)
        self.numbers += array.tobytes()
        data = f'<data element_type="f32" shape="{shape}" offset="{offset}" size="{array.nbytes}"/>'
        return self.layer("Const", name, data=data)

    @property
    def xml(self):
        layers, edges = "".join(self.layers), "".join(reversed(self.edges))
        return f'<?xml version="1.0"?><net version="10"><layers>{layers}</layers><edges>{edges}</edges></net>'.encode()


class Published:
    """The constants by the names of the publication, the networks that hold them, and what they compute."""

    def __init__(self, seed=0):
        draw = np.random.default_rng(seed)

        def normal(*shape, inputs=4):
            return draw.standard_normal(shape).astype(np.float32) / np.float32(inputs**0.5)

        self.mapping = [(normal(LATENT, LATENT), normal(LATENT)) for _ in range(LAYERS)]
        self.constants = {"m.input.input": normal(1, CHANNELS[0], 4, 4)}
        self.scales, self.kernels, self.noise = {}, {}, {}

        def modulation(name, channels, scale=None):
            self.constants[f"{name}.modulation.weight"] = normal(channels, LATENT, inputs=4 * LATENT)
            self.constants[f"{name}.modulation.bias"] = 1 + normal(1, channels, inputs=25)
            if scale is not None:
                self.scales[name] = np.float32(scale)

        def convolution(name, incoming, outgoing, size, kernel):
            modulation(f"{name}.conv", incoming, scale=draw.uniform(0.5, 1.5))
            self.kernels[name] = normal(outgoing, incoming, kernel, kernel, inputs=incoming * kernel**2)
            self.noise[name] = normal(1, 1, size, size)
            self.constants[f"{name}.bias"] = normal(1, outgoing, 1, 1)

        convolution("m.conv1", CHANNELS[0], CHANNELS[0], 4, 3)
        for k, (incoming, outgoing) in enumerate(pairwise(CHANNELS)):
            modulation(f"m.layers.{k}.up", incoming)
            for name, width in (("conv1", incoming // 4), ("conv2", outgoing)):
                convolution(f"m.layers.{k}.{name}", width, outgoing, 8 << k, 1)
                self.constants[f"m.layers.{k}.{name}.conv.weight_dw"] = normal(width, 1, 1, 3, 3, inputs=9)
        self.last = f"m.layers.{len(CHANNELS) - 2}.to_img"
        modulation(f"{self.last}.conv", CHANNELS[-1], scale=0.7)
        self.constants[f"{self.last}.conv.weight"] = normal(12, CHANNELS[-1], 1, 1, inputs=12 * CHANNELS[-1])
        self.constants[f"{self.last}.bias"] = normal(1, 12, 1, 1)

    # What it computes ---------------------------------------------------------------------------------------------

    def w(self, z):
        x = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for weight, bias in self.mapping:
            x = x @ torch.from_numpy(weight).T + torch.from_numpy(bias)
            x = torch.where(x > 0, x, 0.2 * x) * np.sqrt(2)
        return x

    def image(self, w):
        """Images of one w for each modulation, ``(n, modulations, latent)``."""
        w = iter(w.unbind(1))
        c = {name: torch.from_numpy(array) for name, array in self.constants.items()}

        def modulate(x, name):
            style = next(w) @ c[f"{name}.modulation.weight"].T + c[f"{name}.modulation.bias"]
            return x * (style * float(self.scales.get(name, 1)))[:, :, None, None]

        def convolve(x, name):
            x = modulate(x, f"{name}.conv")
            if (depthwise := c.get(f"{name}.conv.weight_dw")) is not None:
                x = torch.cat([F.conv2d(x[:, [i]], depthwise[i], padding=1) for i in range(x.shape[1])], 1)
            kernel = torch.from_numpy(self.kernels[name])
            x = F.conv2d(x, kernel, padding=kernel.shape[-1] // 2) + torch.from_numpy(self.noise[name])
            x = x + c[f"{name}.bias"]
            return torch.where(x > 0, x, 0.2 * x)

        def enlarge(x):
            quarter = x.shape[1] // 4
            out = x.new_zeros(len(x), quarter, 2 * x.shape[2], 2 * x.shape[3])
            for i in range(quarter):
                low, lh, hl, hh = x[:, i], *(x[:, quarter + 3 * i + j] for j in range(3))
                for row, column, sum4 in (
                    (0, 0, low + lh + hl + hh),
                    (0, 1, low + lh - hl - hh),
                    (1, 0, low - lh + hl - hh),
                    (1, 1, low - lh - hl + hh),
                ):
                    out[:, i, row::2, column::2] = 0.5 * sum4
            return out

        x = convolve(c["m.input.input"], "m.conv1")
        for k in range(len(CHANNELS) - 1):
            x = enlarge(modulate(x, f"m.layers.{k}.up"))
            x = convolve(convolve(x, f"m.layers.{k}.conv1"), f"m.layers.{k}.conv2")
        x = modulate(x, f"{self.last}.conv")
        return enlarge(F.conv2d(x, c[f"{self.last}.conv.weight"]) + c[f"{self.last}.bias"])

    # How it is written --------------------------------------------------------------------------------------------

    def files(self):
        """The four files by name."""
        mapping, synthesis = self._mapping(), self._synthesis()
        return {
            "MappingNetwork.xml": mapping.xml,
            "MappingNetwork.bin": bytes(mapping.numbers),
            "SynthesisNetwork.xml": synthesis.xml,
            "SynthesisNetwork.bin": bytes(synthesis.numbers),
        }

    def _mapping(self):
        net = Network()
        x = net.layer("Parameter", "var")
        for number, (weight, bias) in enumerate(self.mapping):
            x = net.layer("MatMul", inputs=(x, net.constant(weight)))
            b = net.constant(bias)
            if number % 2 == 0:  # both are seen in the published file
                b = net.layer("Reshape", inputs=(b, net.constant([1, LATENT])))
            x = net.layer("Multiply", inputs=(net.layer("PReLU", inputs=(net.layer("Add", inputs=(x, b)),)),))
        return net

    def _synthesis(self):
        net = Network()
        style = net.layer("Parameter", "style")
        ids = {}

        def constant(name):
            return ids.setdefault(name, net.constant(self.constants[name], name))

        def modulate(x, name):
            product = net.layer("MatMul", inputs=(style, constant(f"{name}.modulation.weight")))
            total = net.layer("Add", inputs=(product, constant(f"{name}.modulation.bias")))
            shaped = net.layer("Reshape", inputs=(total, net.constant([1])))
            if name in self.scales:
                shaped = net.layer("Multiply", inputs=(shaped, net.constant(self.scales[name])))
            return net.layer("Multiply", inputs=(x, shaped))

        def convolve(x, name):
            x = modulate(x, f"{name}.conv")
            if f"{name}.conv.weight_dw" in self.constants:
                x = net.layer("GroupConvolution", inputs=(x, constant(f"{name}.conv.weight_dw")))
            x = net.layer("Convolution", inputs=(x, net.constant(self.kernels[name])))
            x = net.layer("Add", inputs=(x, net.constant(self.noise[name])))
            return net.layer("PReLU", inputs=(net.layer("Add", inputs=(x, constant(f"{name}.bias"))),))

        x = convolve(constant("m.input.input"), "m.conv1")
        for k in range(len(CHANNELS) - 1):
            x = net.layer("GroupConvolutionBackpropData", inputs=(modulate(x, f"m.layers.{k}.up"),))
            x = convolve(convolve(x, f"m.layers.{k}.conv1"), f"m.layers.{k}.conv2")
        x = net.layer("Convolution", inputs=(modulate(x, f"{self.last}.conv"), constant(f"{self.last}.conv.weight")))
        net.layer("Add", inputs=(x, constant(f"{self.last}.bias")))
        return net


def write_folder(folder, files):
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def write_wheel(path, files, code="raise SystemExit('executed')"):
    """A wheel that pip accepts, whose code must never run."""
    name, version = path.name.split("-")[:2]
    about = f"{name}-{version}.dist-info"
    members = {f"{name}/data/{member}": content for member, content in files.items()} | {
        f"{name}/__init__.py": code.encode(),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{about}/RECORD", "".join(f"{member},,\n" for member in members))
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
